"""Reads the metadata of prepared training data: image_ids, positions, captions and the vocabulary, but no images."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model.vocabulary import Vocabulary
from pipeline.errors import DataError, InputError
from pipeline.filenames import EXTENSIONS
from pipeline.storage.filesystems import open_at
from pipeline.storage.folder import Folder
from pipeline.tar.samples import read_samples

VOCABULARY = "vocabulary.json"
ImageIndices = npt.NDArray[np.int64]
"""Indices of images in a split, from 0."""


@dataclass(frozen=True)
class PreparedSplit:
    """The images of a split by index, in shard order, with their captions. Holds no pixels.

    Args:
        shards: URLs of the tars.
        image_ids: (N,) keys.
        shard, offset: (N,) position of each image: index of its tar in `shards`, and byte offset of its sample.
        words: word ids of all captions, concatenated, without END.
        caption_starts: (captions + 1,) index in `words` at which each caption begins.
        image_starts: (N + 1,) index of the first caption of each image.
        captions: original captions by image; empty if only the ids were requested.
    """

    shards: tuple[str, ...]
    image_ids: tuple[str, ...]
    shard: ImageIndices
    offset: ImageIndices
    words: npt.NDArray[np.int32]
    caption_starts: ImageIndices
    image_starts: ImageIndices
    captions: tuple[tuple[str, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.image_ids)

    def ids(self, number: int) -> list[list[int]]:
        """Returns the word ids of each caption of an image."""
        first, last = self.image_starts[number], self.image_starts[number + 1]
        starts = self.caption_starts[first : last + 1].tolist()
        return [self.words[start:stop].tolist() for start, stop in pairwise(starts)]


def read_split(data: str | Path, split: str, *, captions: bool = False) -> PreparedSplit:
    """Reads a split of prepared data, without its images.

    Args:
        data: folder or URL that `shardtalk prepare` wrote.
        split: name of the split.
        captions: whether to keep the original captions, too.

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
    return PreparedSplit(
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
    """Reads the captions of a split of prepared data by image_id, in shard order. Raises InputError if it is empty."""
    return {key: record["captions"] for _, _, key, record in _records(data, split)}


def read_vocabulary(data: str | Path) -> Vocabulary:
    """Reads the vocabulary of prepared data. Raises InputError if there is none, or it has no words."""
    try:
        vocabulary = Vocabulary(tuple(json.loads(Folder(str(data)).read(VOCABULARY))["words"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{data}/{VOCABULARY} is not a vocabulary: {error}; run `shardtalk prepare`") from error
    if not vocabulary.words:
        raise InputError(f"{data}/{VOCABULARY} has no words; `shardtalk prepare --word_count_threshold 0` keeps all")
    return vocabulary


def _records(data: str | Path, split: str) -> Iterator[tuple[str, int, str, dict[str, Any]]]:
    """Yields shard, offset, key and JSON of every sample of a split."""
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
            for sample in read_samples(file, size=size, wanted="json".__eq__):
                record = sample.files.get("json")
                if record is None or not EXTENSIONS & sample.files.keys():
                    raise InputError(f"{shard}: {sample.key} lacks an image or its captions; run `shardtalk prepare`")
                labels = json.loads(record)
                if not labels["ids"] or len(labels["ids"]) != len(labels["captions"]):
                    raise InputError(f"{shard}: {sample.key} has no captions; run `shardtalk prepare`")
                yield sample.start, sample.key, labels
    except (DataError, KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{shard} is damaged or not of `shardtalk prepare`: {error}") from error
