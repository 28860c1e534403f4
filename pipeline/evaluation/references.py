"""Reads the reference captions to score against, and the training captions that do not count as novel."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.datasets.annotations import CaptionedImage, SplitName, read_annotations
from pipeline.errors import InputError


@dataclass(frozen=True)
class References:
    """Reference captions and training captions."""

    images: list[CaptionedImage]
    """Images to score against, each with at least one caption."""
    training_captions: list[str]
    """Captions that do not count as novel: those of the training split, or else the references."""
    training_source: str
    """Description of the origin of `training_captions`."""
    source: dict[str, Any]
    """Origin of the references, for the report."""


def read_references(file: Path, split: SplitName | None, training: Path | None) -> References:
    """Reads the references of a captions file. Raises InputError if it has none.

    Args:
        file: JSON of captioned images.
        split: the split to score against; None uses all images.
        training: another captions file with the training captions; None uses the train split of `file`.
    """
    found = read_annotations(file)
    images = [image for image in found if image.captions and split in (None, image.split)]
    if not images:
        raise InputError(f"{file} has no image with captions{f' in split {split}' if split else ''}")
    source = {"file": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "split": split}
    if training:
        return References(images, _training(training), str(training), source)
    training_captions = _texts(image for image in found if image.split == "train")
    if training_captions:
        return References(images, training_captions, f"the train split of {file}", source)
    return References(images, _texts(images), "the references themselves", source)


def read_prepared(data: str, split: SplitName, training: Path | None) -> References:
    """Reads the references of shards that `shardtalk prepare` wrote. Raises InputError if there are none."""
    from pipeline.datasets.prepared_split import read_captions  # imports torch

    images = [CaptionedImage(key, tuple(texts), split, key) for key, texts in read_captions(data, split).items()]
    source = {"data": data, "split": split}
    if training:
        return References(images, _training(training), str(training), source)
    training_captions = [text for texts in read_captions(data, "train").values() for text in texts]
    return References(images, training_captions, f"the train split of {data}", source)


def _training(file: Path) -> list[str]:
    """Reads the captions of a file's train split, or all if it has no splits."""
    return _texts(image for image in read_annotations(file) if image.split in (None, "train"))


def _texts(images: Iterable[CaptionedImage]) -> list[str]:
    return [text for image in images for text in image.captions]
