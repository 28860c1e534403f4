"""Selects the rows of an output that are exported. Memory holds a few parts, not the output."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import OutputError
from pipeline.output.commit_log import Commit, CommitLog, RowRange
from pipeline.output.part_reader import read_part
from pipeline.results.review import Review
from pipeline.schema import CONFIDENCE
from pipeline.shards import ShardFormat, format_of
from pipeline.storage.folder import Folder

Row = dict[str, Any]
"""A row of an output by column."""
HELD_PARTS = 4
"""Number of parts held in memory, as neighbouring shards often have rows in the same ones."""


@dataclass(frozen=True)
class Selection:
    """Which rows are exported."""

    errors: Literal["include", "exclude", "only"] = "include"
    min_log_prob_per_token: float = -math.inf
    """Captions below it are left out, and so are those without a log-probability, if it is finite."""


@dataclass
class LeftOut:
    """The numbers of rows that were read and not selected."""

    errors: int = 0
    captions: int = 0
    """Captions where only errors are wanted."""
    improbable: int = 0
    """Captions below `min_log_prob_per_token`, unless a person kept or edited them."""
    rejected: int = 0
    """Rows that a person rejected."""


@dataclass
class SelectedRows:
    """The selected rows of an output."""

    folder: Folder
    commit_log: CommitLog
    selection: Selection
    review: Review | None = None
    left_out: LeftOut = field(default_factory=LeftOut)

    def __post_init__(self) -> None:
        self._read_held = lru_cache(HELD_PARTS)(self._read)
        self._files: dict[str, list[tuple[RowRange, str]]] = {}
        for commit in self.commit_log.commits:
            for row_range in commit.row_ranges:
                if format_of(commit.paths[row_range.shard]) != ShardFormat.IMAGE:
                    self._files.setdefault(row_range.shard, []).append((row_range, commit.file))

    def commits(self) -> list[Commit]:
        """Returns the commits in the order of their first rows, so that an export reads like the input."""
        return sorted(self.commit_log.commits, key=_first_row)

    def parts(self) -> Iterator[list[Row]]:
        """Yields the selected rows of each part, ordered by shard and index."""
        for commit in self.commits():
            yield self.of_part(commit)

    def of_part(self, commit: Commit) -> list[Row]:
        """Returns the selected rows of a part. Raises OutputError if it is damaged."""
        return self._select(self._read(commit.file))

    def of_image_files(self, commit: Commit) -> list[Row]:
        """Returns the selected rows of a part that are image files, not images in tars, Parquet files or lists."""
        files = [path for path in commit.paths.values() if format_of(path) == ShardFormat.IMAGE]
        rows = self._read(commit.file)
        return self._select(rows.filter(pc.is_in(rows["shard"], pa.array(files, pa.string()))))

    def shards(self) -> Iterator[tuple[str, int]]:
        """Yields the id of each shard of many images, and the number of its rows up to the last one committed."""
        for shard, found in self._files.items():
            yield shard, max(row_range.stop for row_range, _ in found)

    def of_shard(self, shard: str, path: str, start: int, stop: int) -> Iterator[Row]:
        """Yields the selected rows of a shard of many images, from index `start` to before `stop`, in order.

        Args:
            shard: id of the shard.
            path: its path, as in the rows.
            start: first index.
            stop: index behind the last one.
        """
        for row_range, file in sorted(self._files[shard]):
            first, end = max(start, row_range.start), min(stop, row_range.stop)
            if first < end:
                rows = self._read_held(file)
                in_range = pc.and_(pc.greater_equal(rows["index"], first), pc.less(rows["index"], end))
                yield from self._select(rows.filter(pc.and_(pc.equal(rows["shard"], path), in_range)))

    def _read(self, file: str) -> pa.Table:
        try:
            return read_part(self.folder, file)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise OutputError(f"{self.folder.url}/{file} is damaged: {error}") from error

    def _select(self, rows: pa.Table) -> list[Row]:
        ordered = self._by_errors(rows).sort_by([("shard", "ascending"), ("index", "ascending")])
        return [found for row in ordered.to_pylist() if (found := self._reviewed(row)) is not None]

    def _by_errors(self, rows: pa.Table) -> pa.Table:
        is_error, total = pc.is_valid(rows["error_code"]), len(rows)
        if self.selection.errors != "include":
            rows = rows.filter(is_error if self.selection.errors == "only" else pc.invert(is_error))
            if self.selection.errors == "only":
                self.left_out.captions += total - len(rows)
            else:
                self.left_out.errors += total - len(rows)
        return rows

    def _reviewed(self, row: Row) -> Row | None:
        """Returns a row as it is exported; None if it is not."""
        if self.review and (decision := self.review.of(row)):
            decided = decision.apply(row)
            self.left_out.rejected += decided is None
            return decided
        if row["error_code"] is None and not self._is_probable(row):
            self.left_out.improbable += 1
            return None
        return row

    def _is_probable(self, row: Row) -> bool:
        minimum, log_prob, num_tokens = self.selection.min_log_prob_per_token, row["log_prob"], row["num_tokens"]
        return minimum == -math.inf or bool(num_tokens and log_prob is not None and log_prob / num_tokens >= minimum)


def confidence_of(row: Row) -> float | None:
    """Returns the confidence of a row; None if the output has no such column of numbers."""
    found = row.get(CONFIDENCE)
    return found if isinstance(found, float) else None


def _first_row(commit: Commit) -> tuple[str, int]:
    return min(((commit.paths[each.shard], each.start) for each in commit.row_ranges), default=("", 0))
