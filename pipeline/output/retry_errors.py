"""Uncommits rows whose error may be transient, so that they are captioned again."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import DataError
from pipeline.filenames import printable
from pipeline.output.commit_log import Commit, CommitLog, RowRange
from pipeline.output.layout import MANIFEST, control_path, partition_of
from pipeline.output.lease import Lease
from pipeline.output.part_reader import read_part
from pipeline.output.writer import write_part
from pipeline.read_options import DEFAULTS, ReadOptions
from pipeline.schema import ErrorCode
from pipeline.shards import Shard, ShardFormat
from pipeline.storage.folder import Folder
from pipeline.tar.rows import tar_rows

RETRYABLE = frozenset({ErrorCode.UNREADABLE, ErrorCode.OUT_OF_MEMORY, ErrorCode.CAPTIONER_FAILED})


def uncommit_errors(
    folder: Folder, commit_log: CommitLog, shards: Iterable[Shard], mine: Lease, *, options: ReadOptions = DEFAULTS
) -> int:
    """Uncommits the rows of these shards that have a retryable error; returns their number.

    If a file has changed since and none of its images was captioned, all its errors are retryable.

    Each part that holds such rows is atomically replaced by one without them. A row stays if its position in the
    shard cannot be determined because the shard is still unreadable.

    Args:
        options: the options by which the shards are read.
    """
    named = {printable(shard.path): shard for shard in shards}
    mended = _changed(folder, commit_log, named)
    concerned = [commit for commit in commit_log.commits if RETRYABLE & commit.errors.keys() or _holds(commit, mended)]
    if not concerned:
        return 0
    mine.confirm()
    for manifest in sorted({control_path(partition_of(commit.file)) + MANIFEST for commit in concerned} | {MANIFEST}):
        if folder.exists(manifest):
            folder.remove(manifest)  # from here on the output is incomplete
    return sum(
        _replace(folder, commit_log, commit, named, mine, mended=mended, options=options) for commit in concerned
    )


def _changed(folder: Folder, commit_log: CommitLog, named: Mapping[str, Shard]) -> set[str]:
    """Returns the paths of files that changed since they were read, and of whose images none was captioned."""
    changed = {path for path, shard in named.items() if commit_log.shard_ids.get(path, shard.id) != shard.id}
    for commit in commit_log.commits:
        captioned = changed.intersection(commit.paths.values())
        if captioned and commit.errors:
            rows = read_part(folder, commit.file, ["shard", "error_code"])
            captioned.intersection_update(rows.filter(pc.is_null(rows["error_code"]))["shard"].to_pylist())
        changed -= captioned
    return changed


def _holds(commit: Commit, paths: set[str]) -> bool:
    return bool(paths and commit.errors) and not paths.isdisjoint(commit.paths.values())


def _replace(
    folder: Folder,
    commit_log: CommitLog,
    commit: Commit,
    named: Mapping[str, Shard],
    mine: Lease,
    *,
    mended: set[str],
    options: ReadOptions,
) -> int:
    file_format = commit.file.rpartition(".")[2]
    rows = read_part(folder, commit.file)
    is_mended = pc.is_in(rows["shard"], pa.array(sorted(mended), pa.string()))
    is_error = pc.and_(pc.is_valid(rows["error_code"]), is_mended)
    failed = rows.filter(pc.or_(pc.is_in(rows["error_code"], pa.array(sorted(RETRYABLE))), is_error))
    places = set(zip(failed["shard"].to_pylist(), failed["index"].to_pylist(), strict=True))
    row_ranges = []
    for row_range in commit.row_ranges:
        path = commit.paths[row_range.shard]
        dropped = {index for shard, index in places if shard == path and row_range.start <= index < row_range.stop}
        kept = _without(row_range, dropped, named[path], options) if dropped and path in named else None
        if kept is None:  # the range stays as it is
            places -= {(path, index) for index in dropped}
        row_ranges += [row_range] if kept is None else kept
    if not places:
        return 0
    keys = zip(rows["shard"].to_pylist(), rows["index"].to_pylist(), strict=True)
    rest = rows.filter(pa.array([key not in places for key in keys]))
    commit_log.remove(commit)
    if len(rest):
        writing = partial(
            write_part,
            file_format=file_format,
            replaces=commit.file,
            confirm=mine.confirm,
            epoch=mine.epoch.id,
            partition=partition_of(commit.file),
        )
        changed = {path for path, _ in places}
        known = {shard: found for shard, found in commit.damage.items() if commit.paths[shard] not in changed}
        commit_log.add(writing(folder, rest, row_ranges, commit.paths, damage=known))
    else:
        mine.write_snapshot(commit_log)
    mine.confirm()  # any driver that begins after this has seen that the old commit does not count
    folder.remove(commit.record)
    folder.remove(commit.file)
    return len(rows) - len(rest)


def _without(row_range: RowRange, dropped: Container[int], shard: Shard, options: ReadOptions) -> list[RowRange] | None:
    """Returns a row range without the dropped rows; None if the byte offset of a dropped row cannot be found."""
    pieces = list(_pieces(row_range, dropped))
    inner = [piece.stop for piece in pieces if piece.stop < row_range.stop]
    try:
        offsets = _offsets(shard, inner, options) if inner else {}
    except (DataError, OSError):
        return None
    return [
        piece if piece.stop == row_range.stop else replace(piece, next_offset=offsets[piece.stop], last=False)
        for piece in pieces
    ]


def _pieces(row_range: RowRange, dropped: Container[int]) -> Iterator[RowRange]:
    start = row_range.start
    for index in range(row_range.start, row_range.stop + 1):
        if index == row_range.stop or index in dropped:
            if index > start:
                yield replace(row_range, start=start, stop=index)
            start = index + 1


def _offsets(shard: Shard, indexes: Sequence[int], options: ReadOptions) -> dict[int, int]:
    """Returns the byte offset from which each row can be read. Walks a tar. Raises DataError or OSError."""
    if shard.format in (ShardFormat.PARQUET, ShardFormat.LIST):  # their rows are found by number
        return dict.fromkeys(indexes, 0)
    found = {row.index: row.start for row in islice(tar_rows(shard, options), max(indexes) + 1)}
    if max(indexes) not in found:
        raise DataError(ErrorCode.TRUNCATED_SHARD, f"row {max(indexes)} is not there any more")
    return found
