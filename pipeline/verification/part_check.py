"""Checks each part of an output against its commit record, and yields the rows of each shard."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.output.commit_log import Commit, CommitLog
from pipeline.output.part_reader import read_part
from pipeline.output.part_summary import hash_keys
from pipeline.schema import ROW, ErrorCode, extended
from pipeline.shards import Shard
from pipeline.storage.folder import Folder
from pipeline.verification.census import RowKey


@dataclass
class RowCounts:
    """Numbers of captions and errors in all readable parts."""

    captions: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    """Number of rows without a caption, by error code."""


def read_parts(
    folder: Folder, commit_log: CommitLog, listed: Mapping[str, Shard], counts: RowCounts
) -> Iterator[str | tuple[Shard, list[RowKey]]]:
    """Yields the problems of the parts, and the rows of each listed shard."""
    awaited = Counter[str]()
    for commit in commit_log.commits:
        for row_range in commit.row_ranges:
            awaited[commit.paths[row_range.shard]] += row_range.stop - row_range.start
    held: dict[str, list[RowKey]] = {}
    for commit in sorted(commit_log.commits, key=_first_row):
        rows = None
        for found in _check_part(folder, commit):
            if isinstance(found, str):
                yield found
            else:
                rows = found
        if rows is None:
            continue
        columns = [rows[name].to_pylist() for name in ("shard", "index", "image_id", "error_code")]
        for path, index, image_id, code in zip(*columns, strict=True):
            if code is None:
                counts.captions += 1
            else:
                counts.errors[code] += 1
            if path in listed:
                held.setdefault(path, []).append(RowKey(index, image_id, code))
                if len(held[path]) == awaited[path]:
                    yield listed[path], held.pop(path)
    yield from ((listed[path], found) for path, found in held.items())


def _first_row(commit: Commit) -> tuple[str, int]:
    return min(((commit.paths[row_range.shard], row_range.start) for row_range in commit.row_ranges), default=("", 0))


def _check_part(folder: Folder, commit: Commit) -> Iterator[str | pa.Table]:
    """Yields the problems of a part, and its rows if they match its commit record."""
    if not folder.exists(commit.file):
        yield f"{commit.file}: missing, with {commit.rows} rows"
        return
    data = folder.read(commit.file)
    if hashlib.sha256(data).hexdigest() != commit.file_sha256:
        yield f"{commit.file}: differs from what was committed ({len(data)} bytes)"
        return
    rows = read_part(folder, commit.file)
    names = rows.schema.names
    if names != extended(ROW, rows.schema).names or len(rows) != commit.rows or hash_keys(rows) != commit.keys_sha256:
        yield f"{commit.file}: its rows do not match its commit record"
        return
    recorded = sorted((commit.paths[i.shard], index) for i in commit.row_ranges for index in range(i.start, i.stop))
    held = sorted(zip(rows["shard"].to_pylist(), rows["index"].to_pylist(), strict=True))
    if recorded != held:
        yield f"{commit.file}: its rows do not match the intervals of its commit record"
    errors = Counter(code for code in rows["error_code"].to_pylist() if code is not None)
    if errors != commit.errors:
        yield f"{commit.file}: its errors are {dict(errors)}, but {commit.errors} in its commit record"
    yield from _check_rows(commit.file, rows)
    yield rows


def _check_rows(file: str, rows: pa.Table) -> Iterator[str]:
    known = set(ErrorCode)
    columns = [rows[name].to_pylist() for name in ("image_id", "caption", "error_code")]
    for image_id, caption, code in zip(*columns, strict=True):
        if (caption is None) == (code is None):
            yield f"{file}: {image_id} has neither a caption nor an error, or both"
        if code is not None and code not in known:
            yield f"{file}: {image_id} has an unknown error code {code!r}"
