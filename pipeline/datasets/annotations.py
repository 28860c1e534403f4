"""Reads annotation files in three JSON formats, and assigns the images to splits.

neuraltalk2:  [{"file_path": "a/b.jpg", "captions": ["…", …], "split"?: "train", "id"?: 7}, …]
Karpathy:     {"images": [{"filename": "b.jpg", "filepath"?: "a", "split": "restval",
                           "sentences": [{"raw": "…", "tokens": […]}, …], "cocoid"?: 7}, …]}
COCO:         {"images": [{"id": 7, "file_name"?: "b.jpg"}, …], "annotations": [{"image_id": 7, "caption": "…"}, …]}

The JSON is parsed as a whole: memory grows with the captions, never with the images. No image is opened here.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args

from pipeline.errors import InputError

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)

_FORMS = (
    "expected neuraltalk2's format, a list of {file_path, captions}, Karpathy's, {images: [{filename, sentences}, …]},"
    " or COCO's, {images: [{id, file_name}, …], annotations: [{image_id, caption}, …]}"
)


@dataclass(frozen=True, slots=True)
class CaptionedImage:
    """An image with its reference captions, as in the JSON."""

    file_path: str
    """Path relative to the root of the images; the id if COCO's format has no file name."""
    captions: tuple[str, ...]
    """Original captions; one that is not text is ""."""
    split: SplitName | None
    """None if the JSON has no split."""
    image_id: int | str
    """`id`, `cocoid` or `imgid` of the JSON; the file path if there is none."""


def coco_number(name: str) -> int | None:
    """Returns COCO's number of an image file, 391895 for "COCO_val2014_000000391895.jpg"; None if there is none."""
    number = name.rpartition("/")[2].partition(".")[0].rpartition("_")[2]
    return int(number) if number.isdecimal() else None


def read_annotations(path: Path) -> list[CaptionedImage]:
    """Reads the images of an annotation file in its order, each file path once.

    Entries with the same file path are merged, so that no image is in two splits.
    Raises InputError for a missing file, another format, an unknown split, or one image in two splits.
    """
    images: dict[str, CaptionedImage] = {}
    for image in _parse(_load(path), path):
        known = images.get(image.file_path)
        if known and known.split != image.split:
            raise InputError(f"{path}: {image.file_path!r} is in two splits, {known.split} and {image.split}; keep one")
        if known:
            image = replace(known, captions=known.captions + image.captions)  # noqa: PLW2901
        images[image.file_path] = image
    if not images:
        raise InputError(f"{path} has no images; {_FORMS}")
    return list(images.values())


def assign_splits(
    images: Sequence[CaptionedImage], *, num_val: int, num_test: int, seed: int
) -> dict[SplitName, list[CaptionedImage]]:
    """Returns the images of each split, in their given order.

    Args:
        num_val, num_test: number of images to draw at random, without replacement. If both are 0, each image keeps
            its own split, or all are in train if none has one.

    Raises InputError if no image is left to train on, or if only some images have a split.
    """
    drawn = _draw(len(images), num_val, num_test, seed) if num_val or num_test else _own_splits(images)
    splits: dict[SplitName, list[CaptionedImage]] = {split: [] for split in SPLITS}
    for image, split in zip(images, drawn, strict=True):
        splits[split].append(image)
    if not splits["train"]:
        raise InputError(f"none of {len(images)} images is for training; give --num_val and --num_test to draw splits")
    return splits


def assign_splits_as_neuraltalk2(
    images: Sequence[CaptionedImage], *, num_val: int, num_test: int, seed: int
) -> dict[SplitName, list[CaptionedImage]]:
    """Returns the images of each split as neuraltalk2's prepro.py assigns them: shuffled as by Python 2.

    Arguments and errors are those of `assign_splits`.
    """
    if not num_val and not num_test:
        return assign_splits(images, num_val=0, num_test=0, seed=seed)
    _refuse_to_draw_all(len(images), num_val, num_test)
    shuffled, number = list(images), random.Random(seed)
    for last in reversed(range(1, len(shuffled))):
        other = int(number.random() * (last + 1))
        shuffled[last], shuffled[other] = shuffled[other], shuffled[last]
    drawn = num_val + num_test
    return {"train": shuffled[drawn:], "val": shuffled[:num_val], "test": shuffled[num_val:drawn]}


def _refuse_to_draw_all(count: int, num_val: int, num_test: int) -> None:
    if num_val + num_test >= count:
        raise InputError(
            f"num_val {num_val} + num_test {num_test} leave none of {count} images to train on; lower them"
        )


def _draw(count: int, num_val: int, num_test: int, seed: int) -> list[SplitName]:
    _refuse_to_draw_all(count, num_val, num_test)
    order = random.Random(seed).sample(range(count), num_val + num_test)
    splits: list[SplitName] = ["train"] * count
    for position in order[:num_val]:
        splits[position] = "val"
    for position in order[num_val:]:
        splits[position] = "test"
    return splits


def _own_splits(images: Sequence[CaptionedImage]) -> list[SplitName]:
    without = [image.file_path for image in images if image.split is None]
    if 0 < len(without) < len(images):
        raise InputError(
            f"{len(without)} of {len(images)} images have no split, the first is {without[0]!r}; "
            "add them, or give --num_val and --num_test to draw all splits anew"
        )
    return [image.split or "train" for image in images]


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))  # editors leave a byte order mark
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; give a captions file; {_FORMS}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; {_FORMS}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON in UTF-8: {error}; {_FORMS}") from error


def _parse(document: Any, path: Path) -> Iterable[CaptionedImage]:
    in_dict = isinstance(document, dict)
    items = document.get("images") if in_dict else document
    if not isinstance(items, list):
        raise InputError(f"{path} holds {type(items).__name__} where a list of images should be; {_FORMS}")
    read = _karpathy if in_dict else _neuraltalk2
    if in_dict and "annotations" in document:
        read = partial(_coco, captions_by_image=_coco_captions(document, path))
    for position, item in enumerate(items):
        try:
            yield read(item)
        except (KeyError, TypeError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise InputError(f"{path}: image {position} {reason}; {_FORMS}") from error
        except ValueError as error:
            raise InputError(f"{path}: image {position} {error}") from error


def _neuraltalk2(item: Any) -> CaptionedImage:
    _expect(item, dict, "is")
    file_path = _expect(item["file_path"], str, "has as file_path")
    captions = [_text(caption) for caption in _expect(item["captions"], list, "has as captions")]
    return CaptionedImage(file_path, tuple(captions), _split(item.get("split")), _identity(item, file_path, "id"))


def _karpathy(item: Any) -> CaptionedImage:
    _expect(item, dict, "is")
    folder = _expect(item.get("filepath", ""), str, "has as filepath")
    name = _expect(item["filename"], str, "has as filename")
    file_path = f"{folder}/{name}" if folder else name
    captions = [_sentence(sentence) for sentence in _expect(item["sentences"], list, "has as sentences")]
    split = _split(item.get("split"))
    return CaptionedImage(file_path, tuple(captions), split, _identity(item, file_path, "cocoid", "imgid"))


def _coco_captions(document: dict[str, Any], path: Path) -> dict[int | str, list[str]]:
    """Returns the captions of COCO's format by image id."""
    captions_by_image: dict[int | str, list[str]] = {}
    try:
        captions_by_image = {image["id"]: [] for image in document["images"]}
        for position, annotation in enumerate(_expect(document["annotations"], list, "has as annotations")):
            if annotation["image_id"] not in captions_by_image:
                raise InputError(
                    f"{path}: annotation {position} is of image {annotation['image_id']!r}, which it has not"
                )
            captions_by_image[annotation["image_id"]].append(_text(annotation["caption"]))
    except (KeyError, TypeError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path}: an image or annotation {reason}; {_FORMS}") from error
    return captions_by_image


def _coco(item: Any, *, captions_by_image: dict[int | str, list[str]]) -> CaptionedImage:
    identity = _expect(item["id"], int | str, "has as id")
    file_path = _expect(item.get("file_name", str(identity)), str, "has as file_name")
    return CaptionedImage(file_path, tuple(captions_by_image[identity]), _split(item.get("split")), identity)


def _sentence(sentence: Any) -> str:
    _expect(sentence, dict, "has as a sentence")
    if "raw" in sentence:
        return _text(sentence["raw"])
    return " ".join(map(_text, _expect(sentence["tokens"], list, "has as tokens")))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _identity(item: dict[str, Any], file_path: str, *names: str) -> int | str:
    return next((item[name] for name in names if isinstance(item.get(name), int | str)), file_path)


def _split(name: Any) -> SplitName | None:
    """Parses a split; Karpathy's "restval" is the part of COCO's validation set that is used for training."""
    if name is None:
        return None
    for split in SPLITS:
        if name == split or (name == "restval" and split == "train"):
            return split
    raise ValueError(f"is in split {name!r}; choose {', '.join(SPLITS)} or restval")


def _expect(value: Any, kind: type | UnionType, what: str) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{what} {str(value)[:40]!r}, not a {getattr(kind, '__name__', kind)}")
    return value
