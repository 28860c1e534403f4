"""Training data: the images and captions of prepared shards.

Reads what `shardtalk prepare` wrote. Encoded images are kept in memory, one split of them; they are decoded anew for
each use, by threads, so memory holds no pixels but those of a few batches.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from model.preprocessing import Preprocessing
from model.vocabulary import Vocabulary
from pipeline.ahead import mapped_ahead
from pipeline.errors import DataError, InputError
from pipeline.images import load
from pipeline.names import EXTENSIONS
from pipeline.storage import Folder, open_at
from pipeline.tar import samples

VOCABULARY = "vocabulary.json"
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Example:
    """An image and what people said of it."""

    image_id: str
    image: bytes
    """Encoded."""
    captions: list[str]
    """As they were written."""
    ids: list[list[int]]
    """Word ids of each caption, without END."""


def read_split(data: str | Path, split: str) -> list[Example]:
    """The examples of a split of a folder or URL, in shard order.

    Raises InputError if there is none, or one has no captions.
    """
    return list(
        _read_split(data, split, lambda key, image, record: Example(key, image, record["captions"], record["ids"]))
    )


def read_captions(data: str | Path, split: str) -> dict[str, list[str]]:
    """The captions of a split of a folder or URL, by image id, in shard order: what `read_split` has, without images.

    Raises InputError if there is none.
    """
    return dict(_read_split(data, split, lambda key, _, record: (key, record["captions"])))


def _read_split(data: str | Path, split: str, made: Callable[[str, bytes, dict[str, Any]], Made]) -> Iterator[Made]:
    """What is made of each key, image and record of a split."""
    names = [name for name in Folder(str(data)).names(split) if name.endswith(".tar")]
    found = False
    for name in names:
        for one in _read_shard(f"{data}/{split}/{name}", made):
            found = True
            yield one
    if not found:
        raise InputError(f"{data}/{split} has no examples; give the folder that `shardtalk prepare` wrote")


def read_vocabulary(data: str | Path) -> Vocabulary:
    """The vocabulary of a folder or URL. Raises InputError if there is none."""
    try:
        return Vocabulary(tuple(json.loads(Folder(str(data)).read(VOCABULARY))["words"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{data}/{VOCABULARY} is not a vocabulary: {error}; run `shardtalk prepare`") from error


def _read_shard(shard: str, made: Callable[[str, bytes, dict[str, Any]], Made]) -> Iterator[Made]:
    try:
        with open_at(shard) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            for sample in samples(file, size=size):
                image = next((data for extension, data in sample.files.items() if extension in EXTENSIONS), None)
                record = sample.files.get("json")
                if image is None or record is None:
                    raise InputError(f"{shard}: {sample.key} lacks an image or its captions; run `shardtalk prepare`")
                yield made(sample.key, image, json.loads(record))
    except (DataError, KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{shard} is damaged or not of `shardtalk prepare`: {error}") from error


def pixel_batches(
    examples: Sequence[Example],
    order: Sequence[int],
    preprocessing: Preprocessing,
    *,
    batch_images: int,
    threads: int,
) -> Iterator[tuple[Sequence[int], torch.Tensor]]:
    """Yields batches of positions in `examples` with their pixels (B, H, W, 3) uint8, decoded ahead by threads."""

    def decoded(batch: Sequence[int]) -> tuple[Sequence[int], torch.Tensor]:
        images = (load(examples[position].image, draft=preprocessing.draft)[0] for position in batch)
        return batch, torch.from_numpy(np.stack([preprocessing.pixels(image) for image in images]))

    batches = [order[i : i + batch_images] for i in range(0, len(order), batch_images)]
    return mapped_ahead(decoded, batches, threads=threads, depth=2 * threads)
