"""Isolates images that kill their worker ("poison pills") by retrying the batch of a dead worker in halves.

Workers report the rows that they begin and finish. Rows that were begun and not finished were in the batch of a worker
that died: they are retried in halves, and a row that killed two workers while it was alone becomes an error. A worker
that died for another reason, such as a preempted node, costs only smaller batches once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from pipeline.schema import ErrorCode

RowId = tuple[str, str, int]
"""Stage name, shard id and index of a row in progress."""
RowPositions = list[int]
Stage = Callable[[pa.Table], pa.Table]
MAX_ATTEMPTS_ALONE = 2
"""Number of workers that a row may kill while it is alone before it becomes an error."""


@dataclass
class Attempt:
    """Rows that were begun together and are not finished."""

    size: int
    times: int = 1


class AttemptTracker:
    """Tracks the rows in progress on all workers of a run."""

    def __init__(self) -> None:
        self._attempts: dict[RowId, Attempt] = {}

    def plan(self, rows: Sequence[RowId]) -> tuple[list[RowPositions], RowPositions] | None:
        """Returns the parts in which to process `rows`, and the poisoned rows that must not be tried again.

        Returns None if no row was in progress on a dead worker; all rows are then begun together.
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
        """Records that rows are begun together."""
        before = self._attempts.get(rows[0]) if len(rows) == 1 else None
        times = before.times + 1 if before and before.size == 1 else 1
        self._attempts.update(dict.fromkeys(rows, Attempt(len(rows), times)))

    def end(self, rows: Sequence[RowId]) -> None:
        """Records that rows are finished."""
        for row in rows:
            self._attempts.pop(row, None)


class Tracker(Protocol):
    """Interface of `AttemptTracker` and of its proxy in other processes."""

    def plan(self, rows: Sequence[RowId]) -> tuple[list[RowPositions], RowPositions] | None: ...  # noqa: D102
    def begin(self, rows: Sequence[RowId]) -> None: ...  # noqa: D102
    def end(self, rows: Sequence[RowId]) -> None: ...  # noqa: D102


class CrashIsolated:
    """Wraps a stage so that rows that kill the process become errors after some attempts.

    Args:
        stage: maps tables to tables row by row, and passes rows with an error code and no image or pixels through.
        name: name of the stage.
        tracker: tracker of the run, or a proxy of it.
    """

    def __init__(self, stage: Stage, name: str, tracker: Tracker) -> None:
        self._stage, self._name, self._tracker = stage, name, tracker

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Applies the stage to the rows; the order changes if some are tried separately."""
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
