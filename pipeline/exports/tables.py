"""Exports to a single file: CSV, JSON lines, COCO results, neuraltalk2's vis.json. Memory holds the rows of a part."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO

from pipeline.datasets.annotations import coco_number
from pipeline.exports.rows import Row, SelectedRows, Selection, confidence_of
from pipeline.output.commit_log import CommitLog
from pipeline.storage.folder import Folder

EXPORTS = "_exports"
"""Folder of an output for exports that belong to it, which readers of the rows ignore."""
CSV_COLUMNS = ("path", "caption", "confidence", "error", "shard", "index")
"""Header of the CSV file."""
_FORMULA = tuple("=+-@＝＋－＠\t\r\n'")
"""First characters of a cell by which spreadsheets take it for a formula, and the apostrophe that defuses it."""
_VIS = {"image_id": "image_id", "caption": "caption", "file_name": "shard"}
"""Keys of vis.json, and the columns that they hold."""
TableWriter = Callable[[BinaryIO, Iterable[list[Row]]], int]
"""Writes the rows of each part to a file; returns their number."""


def write_csv(file: BinaryIO, parts: Iterable[list[Row]]) -> int:
    """Writes a CSV file for spreadsheets: UTF-8 with a byte order mark, lines that end in CR LF (RFC 4180)."""
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="", write_through=True)
    writer, count = csv.writer(text), 0
    writer.writerow(CSV_COLUMNS)
    for rows in parts:
        writer.writerows(map(_csv_cells, rows))
        count += len(rows)
    text.detach()
    return count


def _csv_cells(row: Row) -> list[Any]:
    error = f"{row['error_code']}: {row['error_message']}" if row["error_code"] else None
    texts = (row["image_id"], row["caption"], confidence_of(row), error, row["shard"], row["index"])
    return [defused(cell) if isinstance(cell, str) else cell for cell in texts]


def defused(text: str) -> str:
    """Returns a text as a spreadsheet shows it without computing it: an apostrophe is put before what begins like one.

    It can be undone: whatever begins with an apostrophe has got one.
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def write_jsonl(file: BinaryIO, parts: Iterable[list[Row]]) -> int:
    """Writes an object per row with all columns of the output, in UTF-8."""
    count = 0
    for rows in parts:
        # A captioner may have columns of its own, of times say, for which JSON has no type.
        file.write("".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows).encode())
        count += len(rows)
    return count


def write_vis(file: BinaryIO, parts: Iterable[list[Row]]) -> int:
    """Writes neuraltalk2's vis.json: [{"image_id", "caption", "file_name"}]."""
    found = (row for rows in parts for row in rows)
    return _write_list(file, ({name: row[key] for name, key in _VIS.items()} for row in found))


def write_coco(file: BinaryIO, parts: Iterable[list[Row]]) -> int:
    """Writes COCO results: [{"image_id", "caption"}]; an id is a number if the file name has COCO's number."""
    found = (row for rows in parts for row in rows)
    return _write_list(file, ({"image_id": _coco_id(row), "caption": row["caption"]} for row in found))


def _coco_id(row: Row) -> str | int:
    number = coco_number(row["image_id"])
    found: str | int = row["image_id"] if number is None else number
    return found


def _write_list(file: BinaryIO, entries: Iterable[Mapping[str, Any]]) -> int:
    count = 0
    for entry in entries:
        file.write((b",\n" if count else b"[") + json.dumps(entry, ensure_ascii=False).encode())
        count += 1
    file.write(b"]\n" if count else b"[]\n")
    return count


WRITERS: Mapping[str, TableWriter] = {"csv": write_csv, "jsonl": write_jsonl, "vis": write_vis, "coco": write_coco}
"""Writers by name of the format."""


def write_beside_parts(folder: Folder, commit_log: CommitLog, formats: Iterable[str]) -> None:
    """Writes the captions, without error rows, to `_exports/FORMAT.json` of their output.

    Args:
        formats: "vis" and "coco", or one of them.
    """
    for name in formats:
        rows = SelectedRows(folder, commit_log, Selection(errors="exclude"))
        with folder.writer(f"{EXPORTS}/{name}.json") as file:
            WRITERS[name](file, rows.parts())
