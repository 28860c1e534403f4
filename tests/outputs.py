"""Makes outputs without a captioner: the reader's rows are committed, all with the same caption."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from pipeline.output.commit_log import CommitLog
from pipeline.output.job_record import write_job
from pipeline.output.manifest import finish
from pipeline.output.writer import PartWriter
from pipeline.read_options import DEFAULTS, ReadOptions
from pipeline.readers.reader import read
from pipeline.schema import CAPTIONED
from pipeline.shards import Shard, Span
from pipeline.storage.folder import Folder


def rows_of(shards: Iterable[Shard], options: ReadOptions = DEFAULTS) -> list[dict[str, Any]]:
    """Returns the captioned rows of shards."""
    tables = read([Span(shard) for shard in shards], batch_size=99, options=options)
    found = [row for table in tables for row in table.drop_columns(["image"]).to_pylist()]
    empty = dict.fromkeys(CAPTIONED.names)
    return [empty | row | {"caption": None if row["error_code"] else "a dog"} for row in found]


def commit(
    folder: Folder, rows: Iterable[dict[str, Any]], *, part_rows: int = 3, options: ReadOptions = DEFAULTS
) -> CommitLog:
    """Writes rows as a finished output."""
    job = {"format": "parquet", "reading": options.describe()}
    write_job(folder, job)
    commit_log = CommitLog.load(folder)
    part_writer = PartWriter(folder, commit_log, file_format="parquet", rows_per_file=part_rows, commit_interval_s=1e9)
    for row in rows:
        known = {name: row[name] for name in CAPTIONED.names}
        part_writer.write(pa.Table.from_pylist([known], schema=CAPTIONED))
    part_writer.commit()
    finish(folder, commit_log, job=job, run={}, confirm=lambda: None)
    return CommitLog.load(folder)
