"""Training data: what prepared shards hold, and their images, streamed in an order that a seed decides.

Labels and places of all images are read once, from the tars' headers and JSON members; they stay in memory. Encoded
images are read front to back, once per epoch over all workers, through a buffer that shuffles them; they are decoded by
threads a few batches ahead.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from model.vision.preprocessing import Preprocessing
from model.vocabulary import Vocabulary
from pipeline.errors import DataError, InputError
from pipeline.filenames import EXTENSIONS
from pipeline.images.decoding import decode
from pipeline.storage.filesystems import Folder, open_at
from pipeline.storage.prefetch import in_background, mapped_ahead
from pipeline.tar.samples import samples

VOCABULARY = "vocabulary.json"
Numbers = npt.NDArray[np.int64]
"""Of images in a split, counted from 0."""


@dataclass(frozen=True)
class Split:
    """The images of a split by number, in shard order, and what people said of them. Holds no image.

    Args:
        shards: URLs of the tars.
        image_ids: (N,) keys.
        shard, offset: (N,) where each lies: the place of its tar in `shards`, and the byte at which its sample begins.
        words: word ids of all captions, one after the other, without END.
        caption_starts: (captions + 1,) where each caption begins in `words`.
        image_starts: (N + 1,) which caption is the first of each image.
        captions: as they were written, by image; empty where only the ids were asked for.
    """

    shards: tuple[str, ...]
    image_ids: tuple[str, ...]
    shard: Numbers
    offset: Numbers
    words: npt.NDArray[np.int32]
    caption_starts: Numbers
    image_starts: Numbers
    captions: tuple[tuple[str, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.image_ids)

    def ids(self, number: int) -> list[list[int]]:
        """Word ids of each caption of an image."""
        first, last = self.image_starts[number], self.image_starts[number + 1]
        starts = self.caption_starts[first : last + 1].tolist()
        return [self.words[start:stop].tolist() for start, stop in pairwise(starts)]


def read_split(data: str | Path, split: str, *, captions: bool = False) -> Split:
    """What a split of a folder or URL holds. Reads no image.

    Args:
        captions: whether to keep them as they were written, too.

    Raises InputError if there are no examples, or one has no captions.
    """
    shards, names, places, texts = list[str](), list[str](), list[tuple[int, int]](), list[tuple[str, ...]]()
    words, caption_starts, image_starts = list[npt.NDArray[np.int32]](), [0], [0]
    for shard, offset, key, record in _records(data, split):
        if shard not in shards[-1:]:
            shards.append(shard)
        names.append(key)
        places.append((len(shards) - 1, offset))
        for caption in record["ids"]:
            words.append(np.array(caption, dtype=np.int32))
            caption_starts.append(caption_starts[-1] + len(caption))
        image_starts.append(len(words))
        if captions:
            texts.append(tuple(record["captions"]))
    shard_numbers, offsets = np.array(places, dtype=np.int64).T
    return Split(
        tuple(shards),
        tuple(names),
        shard_numbers,
        offsets,
        np.concatenate(words),
        np.array(caption_starts, dtype=np.int64),
        np.array(image_starts, dtype=np.int64),
        tuple(texts),
    )


def read_captions(data: str | Path, split: str) -> dict[str, list[str]]:
    """The captions of a split of a folder or URL, by image id, in shard order. Raises InputError if there is none."""
    return {key: record["captions"] for _, _, key, record in _records(data, split)}


def read_vocabulary(data: str | Path) -> Vocabulary:
    """The vocabulary of a folder or URL. Raises InputError if there is none, or it has no words."""
    try:
        vocabulary = Vocabulary(tuple(json.loads(Folder(str(data)).read(VOCABULARY))["words"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{data}/{VOCABULARY} is not a vocabulary: {error}; run `shardtalk prepare`") from error
    if not vocabulary.words:
        raise InputError(f"{data}/{VOCABULARY} has no words; `shardtalk prepare --word_count_threshold 0` keeps all")
    return vocabulary


def _records(data: str | Path, split: str) -> Iterator[tuple[str, int, str, dict[str, Any]]]:
    """Shard, offset, key and JSON of every sample of a split."""
    found = False
    for name in Folder(str(data)).names(split):
        if name.endswith(".tar"):
            shard = f"{data}/{split}/{name}"
            for offset, key, record in _in_shard(shard):
                found = True
                yield shard, offset, key, record
    if not found:
        raise InputError(f"{data}/{split} has no examples; give the folder that `shardtalk prepare` wrote")


def _in_shard(shard: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    try:
        with open_at(shard, skim=True) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            for sample in samples(file, size=size, wanted="json".__eq__):
                record = sample.files.get("json")
                if record is None or not EXTENSIONS & sample.files.keys():
                    raise InputError(f"{shard}: {sample.key} lacks an image or its captions; run `shardtalk prepare`")
                labels = json.loads(record)
                if not labels["ids"] or len(labels["ids"]) != len(labels["captions"]):
                    raise InputError(f"{shard}: {sample.key} has no captions; run `shardtalk prepare`")
                yield sample.start, sample.key, labels
    except (DataError, KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{shard} is damaged or not of `shardtalk prepare`: {error}") from error


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
    with contextlib.closing(in_background(_encoded(split, order, first_step), depth=ahead)) as encoded:
        yield from mapped_ahead(decoded, encoded, threads=threads, depth=ahead)


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
