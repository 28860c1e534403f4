"""Writes captioned rows as committed parts: first the part, then the commit record that makes it count."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import time
from collections.abc import Callable, Mapping
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from configs.partition import Partition
from pipeline.errors import OutputError
from pipeline.output.commit_log import Commit, CommitLog, Damage, RowRange
from pipeline.output.layout import part_prefix
from pipeline.output.part_summary import count_errors, find_damage, find_paths, find_row_ranges, hash_keys
from pipeline.schema import CAPTIONED, ROW, extended
from pipeline.storage.folder import Folder


def encode_parquet(rows: pa.Table) -> bytes:
    """Encodes rows as one Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, compression="zstd")
    return buffer.getvalue()


def encode_jsonl(rows: pa.Table) -> bytes:
    """Encodes rows as JSON lines in UTF-8, each with every column of the schema."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows.to_pylist()).encode()


ENCODERS: Mapping[str, Callable[[pa.Table], bytes]] = {"parquet": encode_parquet, "jsonl": encode_jsonl}


class PartWriter:
    """Buffers rows and commits them in parts.

    Args:
        folder: the output.
        commit_log: every commit is added to it.
        file_format: "parquet" or "jsonl".
        rows_per_file: number of rows in a full part.
        commit_interval_s: maximum age of buffered rows in seconds, after which a smaller part is committed; a crash
            costs at most this much work.
        confirm: called before a commit record is written; raises if this process may no longer commit.
        epoch: this driver's `Epoch.id`.
        partition: this driver's partition; None if it writes the whole output.
        clock: monotonic time in seconds.
    """

    def __init__(
        self,
        folder: Folder,
        commit_log: CommitLog,
        *,
        file_format: str,
        rows_per_file: int = 10_000,
        commit_interval_s: float = 60.0,
        confirm: Callable[[], None] = lambda: None,
        epoch: str = "",
        partition: Partition | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._ledger, self._clock = folder, commit_log, clock
        self._write_part = partial(
            write_part, folder, file_format=file_format, confirm=confirm, epoch=epoch, partition=partition
        )
        self._rows_per_file, self._commit_interval_s = rows_per_file, commit_interval_s
        self._waiting: list[pa.Table] = []
        self.rows_waiting = 0
        """Number of buffered rows that are not yet committed."""
        self._since = 0.0

    def write(self, rows: pa.Table) -> None:
        """Buffers rows of `schema.CAPTIONED`, in any order; commits them once a part is full or they are too old."""
        if not self._waiting:
            self._since = self._clock()
        self._waiting.append(rows)
        self.rows_waiting += len(rows)
        enough = self.rows_waiting >= self._rows_per_file
        if enough or self._clock() - self._since >= self._commit_interval_s:
            self.commit()

    def commit(self) -> None:
        """Commits all buffered rows. A crash before the last line leaves the old state, a crash after it the new."""
        if not self._waiting:
            return
        rows = pa.concat_tables(self._waiting)
        rows = rows.cast(extended(CAPTIONED, rows.schema))
        rows = rows.sort_by([("shard", "ascending"), ("index", "ascending")])
        self._waiting, self.rows_waiting = [], 0
        self._ledger.add(self._write_part(rows, find_row_ranges(rows), find_paths(rows)))


def write_part(
    folder: Folder,
    rows: pa.Table,
    row_ranges: list[RowRange],
    paths: Mapping[str, str],
    *,
    file_format: str,
    replaces: str = "",
    damage: Mapping[str, Damage] | None = None,
    confirm: Callable[[], None] = lambda: None,
    epoch: str = "",
    partition: Partition | None = None,
) -> Commit:
    """Writes rows as one part, then the commit record that makes it count.

    Args:
        folder: the output.
        rows: a table with the columns of `schema.ROW`.
        row_ranges: the row ranges that the rows form.
        paths: path of each shard in `row_ranges`, by shard id.
        file_format: "parquet" or "jsonl".
        replaces: file of the commit that this one supersedes; empty if there is none.
        damage: unreadable places by shard id; None computes them from the rows, which then have `num_bytes`.
        confirm: called before the commit record is written; raises if this process may no longer commit.
        epoch: this driver's `Epoch.id`.
        partition: this driver's partition; None if it writes the whole output.
    """
    # The name depends on rows and epoch, so a driver that was paused never overwrites another's part.
    name = part_prefix(partition) + hashlib.sha256(f"{epoch} {row_ranges!r}".encode()).hexdigest()[:16]
    data = ENCODERS[file_format](rows.select(extended(ROW, rows.schema).names))
    commit = Commit(
        file=f"{name}.{file_format}",
        rows=len(rows),
        errors=count_errors(rows),
        file_sha256=hashlib.sha256(data).hexdigest(),
        keys_sha256=hash_keys(rows),
        row_ranges=row_ranges,
        paths={row_range.shard: paths[row_range.shard] for row_range in row_ranges},
        committed=round(time.time(), 3),
        replaces=replaces,
        epoch=epoch,
        damage=find_damage(rows, {path: shard for shard, path in paths.items()}, damage),
    )
    folder.write(commit.file, data)
    try:
        confirm()
    except OutputError:
        with contextlib.suppress(OSError):
            folder.remove(commit.file)
        raise
    folder.write(commit.record, commit.encode())
    return commit
