"""Reads the committed rows of an output."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.output.commit_log import CommitLog
from pipeline.schema import ROW, TOKEN_PROBS, extended
from pipeline.storage.folder import Folder


def read_rows(folder: Folder, commit_log: CommitLog, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Yields the committed rows, one table per part."""
    for commit in sorted(commit_log.commits, key=lambda commit: commit.file):
        yield read_part(folder, commit.file, columns)


def read_part(folder: Folder, name: str, columns: list[str] | None = None) -> pa.Table:
    """Returns all or some columns of a part. Raises OSError or ValueError if it is damaged."""
    data = folder.read(name)
    if name.endswith(".parquet"):
        # With threads, a process that ends soon after may abort while pyarrow's pool is still starting (26.0).
        return pq.ParquetFile(pa.BufferReader(data)).read(columns=columns, use_threads=False)
    records = [json.loads(line) for line in data.splitlines()]
    rows = pa.Table.from_pylist(records, schema=extended(ROW, _added_columns(records)))
    return rows.select(columns) if columns else rows


def _added_columns(records: Sequence[Mapping[str, Any]]) -> pa.Schema:
    """Returns the fields that a captioner added to those of `ROW`; JSON does not say their types, but values do."""
    added = [name for name in (records[0] if records else ()) if name not in ROW.names]
    inferred = pa.Table.from_pylist([{name: record.get(name) for name in added} for record in records]).schema
    return pa.schema([TOKEN_PROBS if field.name == TOKEN_PROBS.name else field for field in inferred])
