"""Proves that an output holds every input key exactly once, from its files alone or against the input.

The proof covers that the output is complete and consistent with itself and with the input; not who wrote it, nor
whether captions are correct. The input is counted independently of the job's readers (`census.py`,
`folder_census.py`).

Memory holds the commit records, one part, and the ids of those shards that have rows in parts still to be read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from configs.loading.renamed import with_new_names
from pipeline.filenames import from_printable, printable
from pipeline.output.commit_log import CommitLog, missing_ranges
from pipeline.output.layout import JOB, MANIFEST, PART
from pipeline.read_options import DEFAULTS, ReadOptions
from pipeline.shards import Shard
from pipeline.storage.filesystems import is_remote
from pipeline.storage.folder import Folder
from pipeline.storage.prefetch import prefetch_map
from pipeline.verification.census import RowKey, compare
from pipeline.verification.part_check import RowCounts, read_parts

THREADS, DEPTH = 8, 16
"""Number of shards that are compared concurrently, and ahead of the results."""
DATA = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".arrow", ".jsonl.gz", ".json.gz", ".csv.gz")
"""Extensions of files that readers of a folder take for data."""
OWN_FOLDERS = ("_commits", "_epochs", "_exports", "_partitions")
OWN_FILES = (JOB, MANIFEST, "_lease.json", "_plan.json")


def find_problems(
    folder: Folder,
    commit_log: CommitLog,
    shards: Iterable[Shard] | None = None,
    options: ReadOptions = DEFAULTS,
    *,
    files: Iterable[str] = (),
    counts: RowCounts | None = None,
) -> Iterator[str]:
    """Yields the problems of an output, one line each; nothing if the output is proven.

    Args:
        folder: the output.
        commit_log: the output's commit records.
        shards: the listing of the input, to compare key by key; None checks only the output itself.
        options: the options by which the job read the shards.
        files: the files of the input according to an independent listing.
        counts: receives the counts of the rows.
    """
    yield from _check_manifest(folder, commit_log)
    yield from _check_unknown_files(folder, commit_log)
    for commit in commit_log.stale:
        yield f"{commit.record} was written by a driver that had lost the output: its rows do not count"
    yield from _check_row_ranges(commit_log)
    listed = None if shards is None else {printable(shard.path): shard for shard in shards}
    if listed is not None:
        yield from _check_listing(commit_log, listed)
        yield from _check_files(commit_log, listed, files)
    yield from _check_parts(folder, commit_log, listed or {}, options, counts or RowCounts())


def _check_manifest(folder: Folder, commit_log: CommitLog) -> Iterator[str]:
    files = {commit.file: {"rows": commit.rows, "sha256": commit.file_sha256} for commit in commit_log.commits}
    job = _read_object(folder, JOB) if folder.exists(JOB) else {}
    if job is None:
        yield f"{JOB} is damaged"
    for name in sorted(files):
        if job and name.rpartition(".")[2] != job.get("format"):
            yield f"{name} is not in the format of {JOB}, {job.get('format')!r}"
    if not folder.exists(MANIFEST):
        yield f"there is no {MANIFEST}: the job is not finished"
        return
    manifest = _read_object(folder, MANIFEST)
    if manifest is None or not all(isinstance(manifest.get(name), dict) for name in ("files", "totals")):
        yield f"{MANIFEST} is damaged"
        return
    told = manifest["files"]
    for name in sorted(told.keys() | files.keys()):
        if told.get(name) != files.get(name):
            yield f"{name}: the manifest says {told.get(name)}, the commit record {files.get(name)}"
    errors = sum(commit_log.errors.values())
    totals = {
        "rows": commit_log.rows,
        "captions": commit_log.rows - errors,
        "errors": errors,
        "shards": len(commit_log.row_ranges),
    }
    for name, count in totals.items():
        if manifest["totals"].get(name) != count:
            yield f"the manifest says {manifest['totals'].get(name)} {name}, the commit records {count}"
    if manifest.get("errors") != commit_log.errors:
        yield f"the manifest says that the errors are {manifest.get('errors')}, the commit records {commit_log.errors}"
    manifest = with_new_names(manifest)  # one of them may be of an earlier version
    for name, value in with_new_names(job or {}).items():
        if manifest.get(name) != value:
            yield f"the manifest says that {name} is {manifest.get(name)!r}, {JOB} {value!r}"


def _read_object(folder: Folder, name: str) -> dict[str, Any] | None:
    """Reads a JSON object; returns None if the file is not one."""
    try:
        found = json.loads(folder.read(name))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _check_unknown_files(folder: Folder, commit_log: CommitLog) -> Iterator[str]:
    """Yields the files that no commit record names and that readers of the folder would take for rows."""
    committed = {commit.file for commit in commit_log.commits}
    for name in folder.names():
        if name.startswith(PART) and name not in committed:
            yield f"{name} has no commit record: its rows do not count"
        elif name.endswith(DATA) and name[0] != "." and name not in committed and name not in OWN_FILES:
            yield f"{name} does not belong to this output, but readers of the folder would take it for rows"
    waiting = [name for name in folder.folders("") if name not in OWN_FOLDERS and name[0] != "."]
    while waiting:
        below = waiting.pop()
        for name in folder.names(below):
            if name.endswith(DATA):
                yield f"{below}/{name} does not belong to this output, but readers of the folder would take it for rows"
        waiting += [f"{below}/{name}" for name in folder.folders(below)]


def _check_row_ranges(commit_log: CommitLog) -> Iterator[str]:
    """Checks that the rows of each shard run from 0 to the last one, without a gap or an overlap."""
    path_of = {shard: path for commit in commit_log.commits for shard, path in commit.paths.items()}
    for shard_id, row_ranges in commit_log.row_ranges.items():
        path, index, finished = path_of[shard_id], 0, False
        for row_range in sorted(row_ranges):
            if row_range.start > index:
                yield f"{path}: rows {index} to {row_range.start - 1} are missing"
            if row_range.start < index or finished:
                yield f"{path}: row {row_range.start} occurs more than once, or after the last row"
            index, finished = max(index, row_range.stop), finished or row_range.last
        if not finished:
            yield f"{path}: the rows from {index} on are missing"


def _check_listing(commit_log: CommitLog, listed: dict[str, Shard]) -> Iterator[str]:
    for path, shard in listed.items():
        committed = commit_log.shard_ids.get(path)
        if committed is None:
            yield f"{path}: not in the output"
        elif committed != shard.id:
            yield f"{path}: has changed since it was captioned"
        elif left := list(missing_ranges(shard, commit_log.row_ranges[committed])):
            yield f"{path}: the rows from {left[0].start} on are missing"
    for path in commit_log.shard_ids.keys() - listed.keys():
        yield f"{path}: in the output but not in the input"


def _check_files(commit_log: CommitLog, listed: Mapping[str, Shard], files: Iterable[str]) -> Iterator[str]:
    """Checks that all files of the independent listing are in the output, possibly under another path over links."""
    real: set[str] | None = None
    for file in files:
        path = printable(file)
        if path in commit_log.shard_ids or path in listed:
            continue
        if real is None:
            real = {os.path.realpath(from_printable(name)) for name in commit_log.shard_ids if not is_remote(name)}
        if is_remote(file) or os.path.realpath(file) not in real:
            yield f"{path}: in the input, but neither in the job's listing nor in the output"


def _check_parts(
    folder: Folder, commit_log: CommitLog, listed: Mapping[str, Shard], options: ReadOptions, counts: RowCounts
) -> Iterator[str]:
    """Reads the parts, and compares the rows of each shard with the input once all of them are read."""

    def compare_shard(found: str | tuple[Shard, list[RowKey]]) -> list[str]:
        if isinstance(found, str):
            return [found]
        shard, rows = found
        return [f"{printable(shard.path)}: {problem}" for problem in compare(shard, rows, options)]

    for lines in prefetch_map(
        compare_shard, read_parts(folder, commit_log, listed, counts), threads=THREADS, depth=DEPTH
    ):
        yield from lines
