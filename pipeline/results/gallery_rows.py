"""Selects the rows of an output that a gallery page shows, and describes the job that wrote them.

Memory holds one part and the selected rows, not the output.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import OutputError
from pipeline.output.commit_log import CommitLog
from pipeline.output.layout import JOB, MANIFEST, PART
from pipeline.output.part_reader import read_part
from pipeline.read_options import ReadOptions
from pipeline.schema import CONFIDENCE, ROW
from pipeline.storage.folder import Folder

_SHOWN = ROW.append(pa.field(CONFIDENCE, pa.float32()))
_DRAW = "draw"


@dataclass(frozen=True)
class GalleryRows:
    """The selected rows, and the counts of all rows."""

    rows: pa.Table
    """A table of `schema.ROW` and `CONFIDENCE`, ordered by shard and index, so that each shard can be walked once."""
    total: int
    """Number of rows in the output."""
    errors: dict[str, int]
    """Number of rows without a caption in the output, by error code."""

    @property
    def has_confidence(self) -> bool:
        """Whether any of the selected rows has a confidence."""
        return bool(self.rows[CONFIDENCE].null_count < len(self.rows))


def select_rows(folder: Folder, *, max_images: int, seed: int = 0) -> GalleryRows:
    """Returns all rows of an output, or a uniform sample of `max_images` of them.

    Raises OutputError if there are none, or a part is damaged.
    """
    draws = np.random.default_rng(seed)
    kept = _SHOWN.append(pa.field(_DRAW, pa.float64())).empty_table()
    total, errors = 0, Counter[str]()
    for rows in _parts(folder):
        total += len(rows)
        errors.update(code for code in rows["error_code"].drop_null().to_pylist())
        kept = pa.concat_tables([kept, rows.append_column(_DRAW, pa.array(draws.random(len(rows))))])
        if len(kept) > max_images:
            kept = kept.take(pc.sort_indices(kept[_DRAW])[:max_images])  # a copy, which frees the rest
    if not total:
        raise OutputError(f"{folder.url} holds no rows; give the folder that `shardtalk caption` wrote")
    kept = kept.drop_columns(_DRAW).sort_by([("shard", "ascending"), ("index", "ascending")])
    return GalleryRows(kept, total, dict(errors.most_common()))


def describe_job(folder: Folder, total: int) -> dict[str, Any]:
    """Returns `captioner` (its name), `images_per_s` and `finished` from the output's records; None if unknown.

    Args:
        total: number of rows in the output; a job is finished if its manifest has the same number.

    Raises OutputError for a record that is damaged.
    """
    job, manifest = _record(folder, JOB), _record(folder, MANIFEST)
    run = _section(manifest, "run") or _section(manifest, "timings")
    speed = run.get("images_per_s")
    return {
        "captioner": _section(manifest, "captioner").get("name") or _section(job, "captioner").get("name"),
        "images_per_s": speed if isinstance(speed, int | float) and speed > 0 else None,  # 0: the run had nothing to do
        "finished": _section(manifest, "totals").get("rows") == total,
    }


def read_options(folder: Folder) -> ReadOptions:
    """Returns the options by which the job read its inputs. Raises OutputError for a damaged record."""
    return ReadOptions.from_job(_record(folder, JOB))


def _parts(folder: Folder) -> Iterator[pa.Table]:
    committed = [commit.file for commit in CommitLog.load(folder).commits]
    # Parts that were copied without their records are shown too.
    names = committed or [name for name in folder.names() if name.startswith(PART)]
    for name in sorted(name for name in names if name.endswith((".parquet", ".jsonl"))):
        try:
            rows = read_part(folder, name)
            missing = set(ROW.names) - set(rows.schema.names)
            if missing:
                raise ValueError(f"it has no column {min(missing)}")
            yield pa.table([*rows.select(ROW.names).columns, _confidence(rows)], _SHOWN.names).cast(_SHOWN)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise OutputError(f"{folder.url}/{name} is damaged: {error}") from error


def _confidence(rows: pa.Table) -> pa.ChunkedArray | pa.Array:
    """Returns the confidences; nulls where a captioner's column of that name holds no numbers."""
    is_there = CONFIDENCE in rows.schema.names and pa.types.is_floating(rows.schema.field(CONFIDENCE).type)
    return rows[CONFIDENCE] if is_there else pa.nulls(len(rows), pa.float32())


def _record(folder: Folder, name: str) -> dict[str, Any]:
    if not folder.exists(name):
        return {}
    try:
        record = json.loads(folder.read(name))
    except ValueError as error:
        raise OutputError(f"{folder.url}/{name} is damaged: {error}") from error
    return record if isinstance(record, dict) else {}


def _section(record: dict[str, Any], name: str) -> dict[str, Any]:
    section = record.get(name)
    return section if isinstance(section, dict) else {}
