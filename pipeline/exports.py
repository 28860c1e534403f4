"""The rows in other forms, under `_exports/`, where readers of the rows do not look."""

from __future__ import annotations

import json
from typing import Any

from pipeline.ledger import Ledger
from pipeline.output import read_rows
from pipeline.storage import Folder

EXPORTS = "_exports"


def write(folder: Folder, ledger: Ledger, *, vis: bool, coco: bool) -> None:
    """Writes the captions, without the errors, in the forms asked for.

    vis.json   neuraltalk2's: [{"image_id", "caption", "file_name"}]
    coco.json  COCO results: [{"image_id", "caption"}]; an id is a number where the file's name is one
    """
    if not (vis or coco):
        return
    rows = [
        row
        for table in read_rows(folder, ledger, ["image_id", "shard", "caption"])
        for row in table.to_pylist()
        if row["caption"] is not None
    ]
    if vis:
        _write(folder, "vis.json", [_vis(row) for row in rows])
    if coco:
        _write(folder, "coco.json", [_coco(row) for row in rows])


def _write(folder: Folder, name: str, entries: list[dict[str, Any]]) -> None:
    text = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    folder.write(f"{EXPORTS}/{name}", f"[{text}]\n".encode())


def _vis(row: dict[str, Any]) -> dict[str, Any]:
    return {"image_id": row["image_id"], "caption": row["caption"], "file_name": row["shard"]}


def _coco(row: dict[str, Any]) -> dict[str, Any]:
    stem = row["image_id"].rpartition("/")[2].partition(".")[0]
    number = stem.rpartition("_")[2]  # COCO_val2014_000000391895.jpg
    return {"image_id": int(number) if number.isdecimal() else row["image_id"], "caption": row["caption"]}
