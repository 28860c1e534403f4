"""Makes finished outputs to export, without a captioner: each caption tells its image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from outputs import commit, rows_of

from pipeline.inputs.listing import list_inputs
from pipeline.read_options import DEFAULTS, ReadOptions
from pipeline.storage.folder import Folder

EMPTY = {"caption": None, "error_code": "empty_file", "error_message": "0 bytes"}
SCORED = {"log_prob": -4.0, "num_tokens": 4}


def caption_of(row: dict[str, Any]) -> str:
    """Returns the caption that `captioned` gives to a row."""
    return f"a ‘dog’ of {row['image_id']}, {row['index']}"


def captioned(
    output: Path | str, *inputs: Path | str, options: ReadOptions = DEFAULTS, part_rows: int = 3
) -> dict[str, str]:
    """Writes a finished output of inputs; returns the captions by image_id, without those that are errors.

    Images are not decoded: only those without a byte, and those that cannot be read, are errors.
    """
    rows = rows_of(list_inputs(map(str, inputs), options).shards, options)
    rows = [row | (EMPTY if not row["num_bytes"] and not row["error_code"] else {}) for row in rows]
    rows = [row if row["error_code"] else row | SCORED | {"caption": caption_of(row)} for row in rows]
    commit(Folder(str(output)), rows, part_rows=part_rows, options=options)
    return {row["image_id"]: row["caption"] for row in rows if row["caption"]}
