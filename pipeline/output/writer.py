"""Writes captioned rows as committed fragments: a data file first, then the record that makes it count."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import OutputError
from pipeline.output.commit_log import Commit, CommitLog, Damage, RowRange, find_row_ranges, hash_keys
from pipeline.output.lost_shards import find_damage
from pipeline.schema import CAPTIONED, ROW, extended
from pipeline.storage.folder import Folder


def encode_parquet(rows: pa.Table) -> bytes:
    """One Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, compression="zstd")
    return buffer.getvalue()


def encode_jsonl(rows: pa.Table) -> bytes:
    """One JSON object a line, UTF-8, with every column of the schema."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows.to_pylist()).encode()


ENCODERS: Mapping[str, Callable[[pa.Table], bytes]] = {"parquet": encode_parquet, "jsonl": encode_jsonl}


class PartWriter:
    """Gathers rows and commits them in fragments of useful size.

    Args:
        folder: the output.
        commit_log: gets every commit.
        file_format: "parquet" or "jsonl".
        rows_per_file: rows of a full fragment.
        commit_interval_s: a fragment is committed after this time even if it is not full: what a crash can cost.
        confirm: called before a record is written; raises if this process may not commit any more.
        epoch: of this driver.
        clock: seconds that pass.
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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._ledger, self._clock = folder, commit_log, clock
        self._write_part = partial(write_part, folder, file_format=file_format, confirm=confirm, epoch=epoch)
        self._rows_per_file, self._commit_interval_s = rows_per_file, commit_interval_s
        self._waiting: list[pa.Table] = []
        self._since = 0.0

    def write(self, rows: pa.Table) -> None:
        """Takes rows of `schema.CAPTIONED`, in any order; commits when there are enough or they have waited long."""
        if not self._waiting:
            self._since = self._clock()
        self._waiting.append(rows)
        enough = self.rows_waiting >= self._rows_per_file
        if enough or self._clock() - self._since >= self._commit_interval_s:
            self.commit()

    @property
    def rows_waiting(self) -> int:
        """Taken and not committed."""
        return sum(map(len, self._waiting))

    def commit(self) -> None:
        """Commits what waits. A crash before the last line leaves the old state, after it the new."""
        if not self._waiting:
            return
        rows = pa.concat_tables(self._waiting)
        rows = rows.cast(extended(CAPTIONED, rows.column_names))
        rows = rows.sort_by([("shard", "ascending"), ("index", "ascending")])
        self._waiting = []
        paths = dict(zip(rows["shard_id"].to_pylist(), rows["shard"].to_pylist(), strict=True))
        self._ledger.add(self._write_part(rows, find_row_ranges(rows), paths))


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
) -> Commit:
    """Writes rows as one fragment, and then its record, which makes it count.

    Args:
        rows: with the columns of `schema.ROW`.
        row_ranges: what the rows make up.
        paths: of the intervals' shards.
        replaces: the file of a commit that stops to count at the same moment.
        damage: known of these rows; None where their `num_bytes` tell.
        confirm: called before the record is written; raises if this process may not commit any more.
        epoch: of this driver.
    """
    # Named by what is in it, and by who writes: no driver that was paused ever writes over another's file.
    name = "part-" + hashlib.sha256(f"{epoch} {row_ranges!r}".encode()).hexdigest()[:16]
    data = ENCODERS[file_format](rows.select(extended(ROW, rows.column_names).names))
    commit = Commit(
        file=f"{name}.{file_format}",
        rows=len(rows),
        errors=dict(Counter(code for code in rows["error_code"].to_pylist() if code)),
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
