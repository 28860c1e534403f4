"""Outputs without a captioner: what the reader finds is committed, with one text for all captions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from pipeline.outcome import DEFAULTS, ReadOptions
from pipeline.output.commit_log import Ledger
from pipeline.output.manifest import finish
from pipeline.output.writer import Sink
from pipeline.readers.reader import read
from pipeline.schema import CAPTIONED
from pipeline.shards import Shard, Span
from pipeline.storage.folder import Folder


def rows_of(shards: Iterable[Shard], options: ReadOptions = DEFAULTS) -> list[dict[str, Any]]:
    """The rows of shards, captioned."""
    tables = read([Span(shard) for shard in shards], batch_images=99, options=options)
    found = [row for table in tables for row in table.drop_columns(["image"]).to_pylist()]
    empty = dict.fromkeys(CAPTIONED.names)
    return [empty | row | {"caption": None if row["error_code"] else "a dog"} for row in found]


def commit(folder: Folder, rows: Iterable[dict[str, Any]], *, part_rows: int = 3) -> Ledger:
    """Writes rows as a finished output."""
    ledger = Ledger.load(folder)
    sink = Sink(folder, ledger, form="parquet", fragment_rows=part_rows, fragment_s=1e9)
    for row in rows:
        known = {name: row[name] for name in CAPTIONED.names}
        sink.write(pa.Table.from_pylist([known], schema=CAPTIONED))
    sink.commit()
    finish(folder, ledger, job={"format": "parquet"}, run={}, confirm=lambda: None)
    return Ledger.load(folder)
