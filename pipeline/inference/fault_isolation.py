"""Finds the image that kills whoever works on it: a batch that did not outlive its worker is tried again by halves.

Workers say which rows they begin, and which they have ended. Rows that come again although they were begun and never
ended are those that a worker died of, or their neighbours: they are tried in halves, and a row that took two workers
while it was alone becomes an error. A worker that died of something else, such as a node that was taken away, costs
smaller batches for once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from pipeline.schema import ErrorCode

RowId = tuple[str, str, int]
"""Stage, and shard's id and index of a row that is worked on."""
RowPositions = list[int]
Stage = Callable[[pa.Table], pa.Table]
MAX_ATTEMPTS_ALONE = 2
"""Workers that a row may take while it is alone."""


@dataclass
class Attempt:
    """Rows that were begun together and are not ended."""

    size: int
    times: int = 1


class AttemptTracker:
    """What all workers of a run are at."""

    def __init__(self) -> None:
        self._attempts: dict[RowId, Attempt] = {}

    def plan(self, rows: Sequence[RowId]) -> tuple[list[RowPositions], RowPositions] | None:
        """What of `rows` to begin, part by part; and the hopeless, not to be tried.

        None where there is no reason for parts: then all are begun.
        """
        if not any(row in self._attempts for row in rows):
            self.begin(rows)
            return None
        parts: dict[int, RowPositions] = {}
        poisoned = []
        for i, row in enumerate(rows):
            found = self._attempts.get(row)
            if found and found.size == 1 and found.times >= MAX_ATTEMPTS_ALONE:
                poisoned.append(i)
            else:
                parts.setdefault(id(found), []).append(i)
        fresh = parts.pop(id(None), None)
        return [*([fresh] if fresh else []), *(half for part in parts.values() for half in _halves(part))], poisoned

    def begin(self, rows: Sequence[RowId]) -> None:
        """Notes that rows are tried together."""
        before = self._attempts.get(rows[0]) if len(rows) == 1 else None
        times = before.times + 1 if before and before.size == 1 else 1
        self._attempts.update(dict.fromkeys(rows, Attempt(len(rows), times)))

    def end(self, rows: Sequence[RowId]) -> None:
        """Notes that rows were tried, and nobody died."""
        for row in rows:
            self._attempts.pop(row, None)


class Tracker(Protocol):
    """`AttemptTracker`, or what stands for them in another process."""

    def plan(self, rows: Sequence[RowId]) -> tuple[list[RowPositions], RowPositions] | None: ...  # noqa: D102
    def begin(self, rows: Sequence[RowId]) -> None: ...  # noqa: D102
    def end(self, rows: Sequence[RowId]) -> None: ...  # noqa: D102


class CrashIsolated:
    """A stage that outlives, at its next attempt, rows that kill the process: they become errors.

    Args:
        stage: from table to table, row by row. A row with an error code and neither image nor pixels passes through.
        name: of the stage.
        tracker: of the run.
    """

    def __init__(self, stage: Stage, name: str, tracker: Tracker) -> None:
        self._stage, self._name, self._tracker = stage, name, tracker

    def __call__(self, rows: pa.Table) -> pa.Table:
        """What the stage makes of the rows; in another order where some are tried apart."""
        ids = list(zip(rows["shard_id"].to_pylist(), rows["index"].to_pylist(), strict=True))
        named = [(self._name, shard, index) for shard, index in ids]
        plan = self._tracker.plan(named)
        if plan is None:
            return self._finish(named, self._stage(rows))
        (parts, poisoned), results = plan, []
        for part in parts:
            these = [named[i] for i in part]
            self._tracker.begin(these)
            results.append(self._finish(these, self._stage(rows.take(part))))
        if poisoned:
            results.append(self._stage(_mark_poisoned(rows.take(poisoned), self._name)))
        return pa.concat_tables(results)

    def _finish(self, rows: list[RowId], result: pa.Table) -> pa.Table:
        self._tracker.end(rows)
        return result


def _halves(part: RowPositions) -> list[RowPositions]:
    middle = len(part) // 2
    return [part[:middle], part[middle:]] if middle else [part]


def _mark_poisoned(rows: pa.Table, stage: str) -> pa.Table:
    error_columns = {
        "error_code": ErrorCode.WORKER_DIED,
        "error_message": f"the worker died each of the {MAX_ATTEMPTS_ALONE} times it tried to {stage} this image alone",
    }
    for i, field in enumerate(rows.schema):
        if field.name in error_columns:
            rows = rows.set_column(i, field, pa.array([error_columns[field.name]] * len(rows), field.type))
        elif field.name in ("image", "pixels"):
            rows = rows.set_column(i, field, pa.nulls(len(rows), field.type))
    return rows
