"""Training data: what prepared shards hold, and their images, streamed in an order that a seed decides.

Labels and places of all images are read once, from the tars' headers and JSON members; they stay in memory. Encoded
images are read front to back, once per epoch over all workers, through a buffer that shuffles them; they are decoded by
threads a few batches ahead.
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
from pipeline.datasets.prepared_split import Numbers, Split
from pipeline.errors import DataError, InputError
from pipeline.filenames import EXTENSIONS
from pipeline.images.decoding import decode
from pipeline.storage.filesystems import open_at
from pipeline.storage.prefetch import prefetch, prefetch_map
from pipeline.tar.samples import samples


@dataclass(frozen=True)
class Order:
    """Which images one of several workers takes in an epoch: as it reads them, and as it uses them, in `steps` steps.

    All workers have as many steps, of as many images as nearly as can be.
    """

    read: Numbers
    used: Numbers
    steps: int

    def batches(self, first_step: int = 0) -> Iterator[Numbers]:
        """The images of each step, from one on."""
        for step in range(first_step, self.steps):
            yield self.used[len(self.used) * step // self.steps : len(self.used) * (step + 1) // self.steps]


def share(split: Split, worker: int, workers: int) -> Numbers:
    """The images of one of several workers, in shard order: as many as the others have, or one less or more."""
    return np.arange(len(split) * worker // workers, len(split) * (worker + 1) // workers)


def shuffled(
    split: Split, random: np.random.Generator, worker: int, workers: int, *, batch_images: int, buffer_images: int
) -> Order:
    """An epoch in random order: shards are shuffled, then images in a buffer while they stream through it.

    Args:
        random: must be alike in all workers.
        batch_images: of all workers together.
    """
    by_shard = np.split(np.arange(len(split)), np.flatnonzero(np.diff(split.shard)) + 1)
    random.shuffle(by_shard)
    read = np.concatenate(by_shard)[share(split, worker, workers)]
    steps = -(-len(split) // batch_images)
    if len(read) <= buffer_images:
        return Order(read, random.permutation(read), steps)
    used, buffer = np.empty_like(read), read[:buffer_images].copy()
    for i, (slot, number) in enumerate(
        zip(random.integers(buffer_images, size=len(read) - buffer_images), read[buffer_images:], strict=True)
    ):
        used[i], buffer[slot] = buffer[slot], number
    used[-buffer_images:] = random.permutation(buffer)
    return Order(read, used, steps)


def in_order(split: Split, numbers: Numbers, batch_images: int) -> Order:
    """Images as they lie, in batches of a size."""
    return Order(numbers, numbers, -(-len(numbers) // batch_images))


def pixel_batches(
    split: Split, order: Order, preprocessing: Preprocessing, *, threads: int, first_step: int = 0
) -> Generator[tuple[Numbers, torch.Tensor]]:
    """Yields the images of each step with their pixels (B, H, W, 3) uint8, read and decoded ahead by threads.

    Raises InputError for a shard or an image that cannot be read: `prepare` wrote only what could be.
    """

    def decoded(batch: tuple[Numbers, list[bytes]]) -> tuple[Numbers, torch.Tensor]:
        numbers, encoded = batch
        images = (_image(split, number, data, preprocessing) for number, data in zip(numbers, encoded, strict=True))
        return numbers, torch.from_numpy(np.stack(list(images)))

    ahead = 2 * threads
    with contextlib.closing(prefetch(_encoded(split, order, first_step), depth=ahead)) as encoded:
        yield from prefetch_map(decoded, encoded, threads=threads, depth=ahead)


def _image(split: Split, number: int, data: bytes, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    try:
        return decode(data, preprocessing)[0]
    except DataError as error:
        name = f"{split.shards[split.shard[number]]}: {split.image_ids[number]}"
        raise InputError(f"{name} cannot be used: {error}; run `shardtalk prepare`") from error


def _encoded(split: Split, order: Order, first_step: int) -> Iterator[tuple[Numbers, list[bytes]]]:
    """The encoded images of each step; those wait that come before they are used."""
    batches = list(order.batches(first_step))
    wanted = set(np.concatenate(batches).tolist()) if batches else set()
    arriving = _read(split, (number for number in order.read.tolist() if number in wanted))
    waiting = dict[int, bytes]()
    for batch in batches:
        numbers = batch.tolist()
        for number in numbers:
            while number not in waiting:
                arrived, data = next(arriving)
                waiting[arrived] = data
        yield batch, [waiting.pop(number) for number in numbers]


def _read(split: Split, numbers: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    """Encoded images in an order in which those of a shard lie as they do there."""
    for shard_number, group in groupby(numbers, key=lambda number: int(split.shard[number])):
        yield from _read_from(split, split.shards[shard_number], list(group))


def _read_from(split: Split, shard: str, numbers: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    try:
        with open_at(shard) as file:
            size = file.seek(0, os.SEEK_END)
            for number in numbers:
                offset = int(split.offset[number])
                if file.tell() != offset:
                    file.seek(offset)
                sample = next(samples(file, size=size, offset=offset, wanted=EXTENSIONS.__contains__))
                yield number, next(data for data in sample.files.values() if data is not None)
    except (DataError, StopIteration, OSError) as error:
        raise InputError(f"{shard} is damaged, or was changed since training began: {error}") from error
