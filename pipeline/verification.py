"""Proof that an output holds every input key exactly once: from its files alone, or against the input's own listing.

Memory holds the records, one part and the keys of a few tars; not the rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import groupby
from operator import itemgetter

import pyarrow as pa

from pipeline.inputs import Shard
from pipeline.ledger import Commit, Ledger, gaps, hash_keys
from pipeline.names import printable
from pipeline.outcome import DEFAULTS, ReadOptions
from pipeline.output import MANIFEST, PART, read_part
from pipeline.schema import ROW, ErrorCode, extended
from pipeline.source import keys
from pipeline.storage import Folder

CACHED_TARS = 16


def problems(
    folder: Folder, ledger: Ledger, shards: Iterable[Shard] | None = None, options: ReadOptions = DEFAULTS
) -> Iterator[str]:
    """Yields what is wrong, a line each; nothing if the output is proven.

    Args:
        folder: the output.
        ledger: its commit records.
        shards: the input's listing, to compare key by key; None checks the output by itself.
        options: how the job read them.
    """
    yield from _check_manifest(folder, ledger)
    for commit in ledger.late:
        yield f"{commit.record} is of a driver that had lost the output: its rows do not count"
    yield from _check_intervals(ledger)
    listed = None if shards is None else {printable(shard.path): shard for shard in shards}
    if listed is not None:
        yield from _check_listing(ledger, listed)
    for commit in ledger.commits:
        yield from _check_part(folder, commit, listed, options)


def _check_manifest(folder: Folder, ledger: Ledger) -> Iterator[str]:
    files = {commit.file: {"rows": commit.rows, "sha256": commit.file_sha256} for commit in ledger.commits}
    for name in folder.names():
        if name.startswith(PART) and name not in files:
            yield f"{name} has no commit record: its rows do not count"
    if not folder.exists(MANIFEST):
        yield f"there is no {MANIFEST}: the job is not finished"
        return
    try:
        manifest = json.loads(folder.read(MANIFEST))
        told, rows = dict(manifest["files"]), manifest["totals"]["rows"]
    except (ValueError, KeyError, TypeError) as error:
        yield f"{MANIFEST} is damaged: {error}"
        return
    for name in sorted(told.keys() | files.keys()):
        if told.get(name) != files.get(name):
            yield f"{name}: the manifest says {told.get(name)}, the commit record {files.get(name)}"
    if rows != ledger.rows:
        yield f"the manifest says {rows} rows, the commit records {ledger.rows}"


def _check_intervals(ledger: Ledger) -> Iterator[str]:
    """Each shard's rows follow each other from 0 to its last, without a gap or an overlap."""
    path_of = {shard: path for commit in ledger.commits for shard, path in commit.paths.items()}
    for shard_id, intervals in ledger.intervals.items():
        path, index, finished = path_of[shard_id], 0, False
        for interval in sorted(intervals):
            if interval.start > index:
                yield f"{path}: rows {index} to {interval.start - 1} are missing"
            if interval.start < index or finished:
                yield f"{path}: row {interval.start} is there more than once, or after the last"
            index, finished = max(index, interval.stop), finished or interval.last
        if not finished:
            yield f"{path}: the rows from {index} on are missing"


def _check_listing(ledger: Ledger, listed: dict[str, Shard]) -> Iterator[str]:
    for path, shard in listed.items():
        committed = ledger.shard_of.get(path)
        if committed is None:
            yield f"{path}: not in the output"
        elif committed != shard.id:
            yield f"{path}: has changed since it was captioned"
        elif left := list(gaps(shard, ledger.intervals[committed])):
            yield f"{path}: the rows from {left[0].start} on are missing"
    for path in ledger.shard_of.keys() - listed.keys():
        yield f"{path}: in the output, and not in the input"


def _check_part(folder: Folder, commit: Commit, listed: dict[str, Shard] | None, options: ReadOptions) -> Iterator[str]:
    if not folder.exists(commit.file):
        yield f"{commit.file}: missing, with {commit.rows} rows"
        return
    data = folder.read(commit.file)
    if hashlib.sha256(data).hexdigest() != commit.file_sha256:
        yield f"{commit.file}: differs from what was committed ({len(data)} bytes)"
        return
    rows = read_part(folder, commit.file)
    names = rows.schema.names
    if names != extended(ROW, names).names or len(rows) != commit.rows or hash_keys(rows) != commit.keys_sha256:
        yield f"{commit.file}: its rows are not those of its commit record"
        return
    recorded = sorted((commit.paths[i.shard], index) for i in commit.intervals for index in range(i.start, i.stop))
    held = sorted(zip(rows["shard"].to_pylist(), rows["index"].to_pylist(), strict=True))
    if recorded != held:
        yield f"{commit.file}: its rows are not in the intervals of its commit record"
    yield from _check_rows(commit.file, rows, listed, options)


def _check_rows(file: str, rows: pa.Table, listed: dict[str, Shard] | None, options: ReadOptions) -> Iterator[str]:
    known = set(ErrorCode)
    columns = rows.select(["shard", "index", "image_id", "caption", "error_code"]).to_pylist()
    for row in columns:
        if (row["caption"] is None) == (row["error_code"] is None):
            yield f"{file}: {row['image_id']} has neither a caption nor an error, or both"
        if row["error_code"] is not None and row["error_code"] not in known:
            yield f"{file}: {row['image_id']} has an unknown error code {row['error_code']!r}"
    for path, group in groupby(columns, key=itemgetter("shard")):
        if listed and path in listed:
            expected_keys = _keys(listed[path], options)
            for row in group:
                expected = expected_keys[row["index"]] if row["index"] < len(expected_keys) else None
                if row["image_id"] != expected:
                    yield f"{file}: row {row['index']} of {path} is {row['image_id']!r}, and {expected!r} in the input"


@lru_cache(CACHED_TARS)
def _keys(shard: Shard, options: ReadOptions) -> tuple[str, ...]:
    """What the rows of a shard are called, in order, from its headers alone."""
    return tuple(keys(shard, options))
