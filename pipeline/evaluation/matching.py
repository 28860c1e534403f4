"""Matches captions with the images of the references, whose names may differ.

An image has an id and a file name. File names match with or without folder and extension, and a bare number matches
COCO's number of a file; the most exact match counts. Ambiguous matches are rejected.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.datasets.annotations import CaptionedImage, coco_number
from pipeline.errors import InputError
from pipeline.evaluation.predictions import Prediction
from pipeline.filenames import EXTENSIONS

Match = Literal["auto", "file", "id"]
EXACT = 0


@dataclass(frozen=True)
class Pairing:
    """Matched captions and references, and those without a match."""

    pairs: list[tuple[Prediction, CaptionedImage]]
    """In the order of the references."""
    without_references: list[Prediction]
    without_caption: list[CaptionedImage]


def pair(captions: Sequence[Prediction], references: Sequence[CaptionedImage], *, match: Match = "auto") -> Pairing:
    """Matches each caption with an image.

    Args:
        match: match by file name or by id; "auto" uses both, if they do not contradict each other.

    Raises InputError if a caption matches two images, or two captions match one.
    """
    by_id, by_file = _indices(references)
    best: dict[int, tuple[int, Prediction]] = {}
    unmatched = []
    for prediction in captions:
        found = set()
        if match != "file" and prediction.image_id in by_id:
            found |= {(EXACT, place) for place in by_id[prediction.image_id]}
        if match != "id":
            found |= _by_file(prediction.image_id, by_file)
        place = _only(prediction, {place for _, place in found}, references)
        if place is None:
            unmatched.append(prediction)
            continue
        level = min(level for level, _ in found)
        loser = _less_exact((level, prediction), best.get(place), references[place])
        unmatched += [loser] if loser else []
        best[place] = (level, prediction) if loser is not prediction else best[place]
    pairs = [(best[place][1], image) for place, image in enumerate(references) if place in best]
    missing = [image for place, image in enumerate(references) if place not in best]
    return Pairing(pairs, unmatched, missing)


def _indices(references: Sequence[CaptionedImage]) -> tuple[dict[str, list[int]], list[dict[str, list[int]]]]:
    """Indexes the references by id, and by each form of the file name, the most exact first."""
    by_id: dict[str, list[int]] = defaultdict(list)
    by_file: list[dict[str, list[int]]] = [defaultdict(list) for _ in _forms("")]
    for place, image in enumerate(references):
        by_id[str(image.image_id)].append(place)
        for index, form in zip(by_file, _forms(image.file_path), strict=True):
            index[form].append(place)
    return dict(by_id), [dict(index) for index in by_file]


def _forms(name: str) -> tuple[str, ...]:
    """Returns the forms of a file name: complete, without extension, without folder, without both, COCO's number."""
    base, number = name.rpartition("/")[2], coco_number(name)
    return name, _without_extension(name), base, _without_extension(base), "" if number is None else str(number)


def _without_extension(name: str) -> str:
    stem, dot, extension = name.rpartition(".")
    return stem if dot and extension.lower() in EXTENSIONS else name


def _by_file(image_id: str, by_file: list[dict[str, list[int]]]) -> set[tuple[int, int]]:
    """Returns level and indices of the most exact match of a file name."""
    *forms, _ = _forms(image_id)
    forms.append(str(int(image_id)) if image_id.isdecimal() else "")
    for level, (index, form) in enumerate(zip(by_file, forms, strict=True)):
        if form and form in index:
            return {(level, place) for place in index[form]}
    return set()


def _only(prediction: Prediction, places: set[int], references: Sequence[CaptionedImage]) -> int | None:
    if len(places) > 1:
        first, second, *_ = (
            f"{references[place].file_path} (id {references[place].image_id})" for place in sorted(places)
        )
        raise InputError(
            f"the caption of {prediction.image_id!r} matches {first} and {second}; "
            "give --match file or --match id, or captions whose image_id tells them apart"
        )
    return next(iter(places), None)


def _less_exact(
    now: tuple[int, Prediction], before: tuple[int, Prediction] | None, image: CaptionedImage
) -> Prediction | None:
    """Returns the less exact match of two captions for an image, or the one that is an error."""
    if before is None:
        return None
    rank, rank_before = ((level, prediction.caption is None) for level, prediction in (now, before))
    if rank == rank_before and now[1].caption is not None:
        raise InputError(
            f"the captions of {before[1].image_id!r} and {now[1].image_id!r} both match {image.file_path}; keep one"
        )
    return now[1] if rank >= rank_before else before[1]
