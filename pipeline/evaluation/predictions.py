"""Reads captions to be scored: the output of a caption job, or a JSON list of {image_id, caption}."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, PipelineError
from pipeline.output.commit_log import CommitLog
from pipeline.output.layout import JOB
from pipeline.output.part_reader import read_rows
from pipeline.storage.filesystems import is_remote, open_at
from pipeline.storage.folder import Folder


@dataclass(frozen=True, slots=True)
class Prediction:
    """The caption of an image, or the error in its place."""

    image_id: str
    caption: str | None
    """None if the image has an error instead."""
    error_code: str | None = None


def read_captions(where: str) -> list[Prediction]:
    """Reads the rows of an output of `shardtalk caption`, or the entries of COCO results or vis.json.

    Raises InputError for anything else.
    """
    if is_output(where):
        try:
            return list(_rows(where))
        except PipelineError:
            raise
        except (OSError, ValueError) as error:
            raise InputError(f"{where} is damaged: {error}; `shardtalk verify` says where") from error
    try:
        with open_at(where) as file:
            entries = json.loads(file.read().decode("utf-8-sig"))
    except (OSError, RecursionError, ValueError) as error:
        raise InputError(
            f"{where} is neither an output of `shardtalk caption` nor a JSON file of captions: {error}"
        ) from error
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{where} holds no list of captions; expected [{{image_id, caption}}, …]")
    return [_entry(where, place, entry) for place, entry in enumerate(entries)]


def is_output(where: str) -> bool:
    """Returns whether a folder is an output of `shardtalk caption`."""
    return (is_remote(where) or Path(where).is_dir()) and Folder(where).exists(JOB)


def read_job(where: str) -> dict[str, Any]:
    """Reads the settings that determined the captions of an output. Raises InputError if the record is damaged."""
    try:
        job: dict[str, Any] = json.loads(Folder(where).read(JOB))
    except ValueError as error:
        raise InputError(f"{where}/{JOB} is damaged: {error}") from error
    return job


def _rows(where: str) -> Iterator[Prediction]:
    folder = Folder(where)
    for table in read_rows(folder, CommitLog.load(folder), ["image_id", "caption", "error_code"]):
        for row in table.to_pylist():
            yield Prediction(**row)


def _entry(where: str, place: int, entry: Any) -> Prediction:
    """Parses an entry; `image_id` may be a number, as in COCO, or text."""
    if not isinstance(entry, dict) or not isinstance(entry.get("image_id"), int | str) or "caption" not in entry:
        raise InputError(f"{where}: entry {place} is {str(entry)[:60]!r}; expected {{image_id, caption}}")
    caption = entry["caption"]
    if caption is not None and not isinstance(caption, str):
        raise InputError(f"{where}: the caption of entry {place} is {str(caption)[:60]!r}, not text")
    return Prediction(str(entry["image_id"]), caption)
