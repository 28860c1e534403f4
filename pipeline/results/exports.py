"""Exports the captions to other formats under `_exports/`, which readers of the rows ignore."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from pipeline.datasets.annotations import coco_number
from pipeline.output.commit_log import CommitLog
from pipeline.output.part_reader import read_rows
from pipeline.storage.folder import Folder

EXPORTS = "_exports"


def write(folder: Folder, commit_log: CommitLog, *, vis: bool, coco: bool) -> None:
    """Writes the captions, without error rows, in the requested formats.

    vis.json   neuraltalk2's: [{"image_id", "caption", "file_name"}]
    coco.json  COCO results: [{"image_id", "caption"}]; an id is a number if the file name has COCO's number
    """
    if vis:
        _write(folder, "vis.json", map(_vis, _captions(folder, commit_log)))
    if coco:
        _write(folder, "coco.json", map(_coco, _captions(folder, commit_log)))


def _captions(folder: Folder, commit_log: CommitLog) -> Iterator[dict[str, Any]]:
    for table in read_rows(folder, commit_log, ["image_id", "shard", "caption"]):
        for row in table.to_pylist():
            if row["caption"] is not None:
                yield row


def _write(folder: Folder, name: str, entries: Iterable[dict[str, Any]]) -> None:
    with folder.writer(f"{EXPORTS}/{name}") as file:
        before = b"["
        for entry in entries:
            file.write(before + json.dumps(entry, ensure_ascii=False).encode())
            before = b",\n"
        file.write(b"[]\n" if before == b"[" else b"]\n")


def _vis(row: dict[str, Any]) -> dict[str, Any]:
    return {"image_id": row["image_id"], "caption": row["caption"], "file_name": row["shard"]}


def _coco(row: dict[str, Any]) -> dict[str, Any]:
    number = coco_number(row["image_id"])
    return {"image_id": row["image_id"] if number is None else number, "caption": row["caption"]}
