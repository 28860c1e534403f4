"""Streams the images of prepared shards in an order determined by a seed.

Encoded images are read sequentially, once per epoch over all workers, and shuffled in a buffer; threads decode them a
few batches ahead.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
import torch

from model.vision.preprocessing import Preprocessing
from pipeline.datasets.prepared_split import ImageIndices, PreparedSplit
from pipeline.errors import DataError, InputError
from pipeline.filenames import EXTENSIONS
from pipeline.images.decoding import decode
from pipeline.storage.filesystems import open_at
from pipeline.storage.prefetch import prefetch, prefetch_map
from pipeline.tar.samples import read_samples


@dataclass(frozen=True)
class EpochOrder:
    """The images of one worker in an epoch: in reading order, and in order of use, in `steps` steps.

    All workers have the same number of steps, and steps of equal size up to one image.
    """

    read: ImageIndices
    used: ImageIndices
    steps: int

    def batches(self, first_step: int = 0) -> Iterator[ImageIndices]:
        """Yields the images of each step from `first_step` on."""
        for step in range(first_step, self.steps):
            yield self.used[len(self.used) * step // self.steps : len(self.used) * (step + 1) // self.steps]


def worker_share(split: PreparedSplit, rank: int, num_workers: int) -> ImageIndices:
    """Returns the images of one worker in shard order; the shares of all workers differ by at most one image."""
    return np.arange(len(split) * rank // num_workers, len(split) * (rank + 1) // num_workers)


def shuffle_epoch(
    split: PreparedSplit,
    random: np.random.Generator,
    rank: int,
    num_workers: int,
    *,
    batch_size: int,
    buffer_images: int,
) -> EpochOrder:
    """Returns an epoch in random order: shards are shuffled, then images in a buffer through which they stream.

    Args:
        random: generator with the same state on all workers.
        batch_size: number of images per step, of all workers together.
        buffer_images: size of the shuffle buffer in images.
    """
    by_shard = np.split(np.arange(len(split)), np.flatnonzero(np.diff(split.shard)) + 1)
    random.shuffle(by_shard)
    read = np.concatenate(by_shard)[worker_share(split, rank, num_workers)]
    steps = -(-len(split) // batch_size)
    if len(read) <= buffer_images:
        return EpochOrder(read, random.permutation(read), steps)
    used, buffer = np.empty_like(read), read[:buffer_images].copy()
    for i, (slot, number) in enumerate(
        zip(random.integers(buffer_images, size=len(read) - buffer_images), read[buffer_images:], strict=True)
    ):
        used[i], buffer[slot] = buffer[slot], number
    used[-buffer_images:] = random.permutation(buffer)
    return EpochOrder(read, used, steps)


def in_order(split: PreparedSplit, indices: ImageIndices, batch_size: int) -> EpochOrder:
    """Returns images in shard order, in batches of `batch_size`."""
    return EpochOrder(indices, indices, -(-len(indices) // batch_size))


def pixel_batches(
    split: PreparedSplit,
    order: EpochOrder,
    preprocessing: Preprocessing,
    *,
    num_decode_threads: int,
    first_step: int = 0,
) -> Generator[tuple[ImageIndices, torch.Tensor]]:
    """Yields the images of each step with their pixels (B, H, W, 3) uint8, read and decoded ahead by threads.

    Raises InputError for a shard or an image that cannot be read: `prepare` wrote only what could be.
    """

    def decoded(batch: tuple[ImageIndices, list[bytes]]) -> tuple[ImageIndices, torch.Tensor]:
        indices, encoded = batch
        images = (_image(split, number, data, preprocessing) for number, data in zip(indices, encoded, strict=True))
        return indices, torch.from_numpy(np.stack(list(images)))

    ahead = 2 * num_decode_threads
    with contextlib.closing(prefetch(_encoded(split, order, first_step), depth=ahead)) as encoded:
        yield from prefetch_map(decoded, encoded, threads=num_decode_threads, depth=ahead)


def _image(split: PreparedSplit, number: int, data: bytes, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    try:
        return decode(data, preprocessing)[0]
    except DataError as error:
        name = f"{split.shards[split.shard[number]]}: {split.image_ids[number]}"
        raise InputError(f"{name} cannot be used: {error}; run `shardtalk prepare`") from error


def _encoded(split: PreparedSplit, order: EpochOrder, first_step: int) -> Iterator[tuple[ImageIndices, list[bytes]]]:
    """Yields the encoded images of each step; images that are read before their use are buffered."""
    batches = list(order.batches(first_step))
    wanted = set(np.concatenate(batches).tolist()) if batches else set()
    arriving = _read(split, (number for number in order.read.tolist() if number in wanted))
    waiting = dict[int, bytes]()
    for batch in batches:
        indices = batch.tolist()
        for number in indices:
            while number not in waiting:
                arrived, data = next(arriving)
                waiting[arrived] = data
        yield batch, [waiting.pop(number) for number in indices]


def _read(split: PreparedSplit, indices: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    """Yields encoded images; those of one shard must be in the order of the shard."""
    for shard_number, group in groupby(indices, key=lambda number: int(split.shard[number])):
        yield from _read_from(split, split.shards[shard_number], list(group))


def _read_from(split: PreparedSplit, shard: str, indices: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    try:
        with open_at(shard) as file:
            size = file.seek(0, os.SEEK_END)
            for number in indices:
                offset = int(split.offset[number])
                if file.tell() != offset:
                    file.seek(offset)
                sample = next(read_samples(file, size=size, offset=offset, wanted=EXTENSIONS.__contains__))
                yield number, next(data for data in sample.files.values() if data is not None)
    except (DataError, StopIteration, OSError) as error:
        raise InputError(f"{shard} is damaged, or was changed since training began: {error}") from error
