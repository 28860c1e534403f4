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
Positions = list[int]
Stage = Callable[[pa.Table], pa.Table]
CHANCES_ALONE = 2
"""Workers that a row may take while it is alone."""


@dataclass
class Try:
    """Rows that were begun together and are not ended."""

    size: int
    times: int = 1


class Attempts:
    """What all workers of a run are at."""

    def __init__(self) -> None:
        self._tries: dict[RowId, Try] = {}

    def plan(self, rows: Sequence[RowId]) -> tuple[list[Positions], Positions] | None:
        """What of `rows` to begin, part by part; and the hopeless, not to be tried.

        None where there is no reason for parts: then all are begun.
        """
        if not any(row in self._tries for row in rows):
            self.begin(rows)
            return None
        parts: dict[int, Positions] = {}
        hopeless = []
        for i, row in enumerate(rows):
            found = self._tries.get(row)
            if found and found.size == 1 and found.times >= CHANCES_ALONE:
                hopeless.append(i)
            else:
                parts.setdefault(id(found), []).append(i)
        fresh = parts.pop(id(None), None)
        return [*([fresh] if fresh else []), *(half for part in parts.values() for half in _halves(part))], hopeless

    def begin(self, rows: Sequence[RowId]) -> None:
        """Notes that rows are tried together."""
        before = self._tries.get(rows[0]) if len(rows) == 1 else None
        times = before.times + 1 if before and before.size == 1 else 1
        self._tries.update(dict.fromkeys(rows, Try(len(rows), times)))

    def end(self, rows: Sequence[RowId]) -> None:
        """Notes that rows were tried, and nobody died."""
        for row in rows:
            self._tries.pop(row, None)


class Register(Protocol):
    """`Attempts`, or what stands for them in another process."""

    def plan(self, rows: Sequence[RowId]) -> tuple[list[Positions], Positions] | None: ...  # noqa: D102
    def begin(self, rows: Sequence[RowId]) -> None: ...  # noqa: D102
    def end(self, rows: Sequence[RowId]) -> None: ...  # noqa: D102


class Bisected:
    """A stage that outlives, at its next attempt, rows that kill the process: they become errors.

    Args:
        stage: from table to table, row by row. A row with an error code and neither image nor pixels passes through.
        name: of the stage.
        attempts: of the run.
    """

    def __init__(self, stage: Stage, name: str, attempts: Register) -> None:
        self._stage, self._name, self._attempts = stage, name, attempts

    def __call__(self, rows: pa.Table) -> pa.Table:
        """What the stage makes of the rows; in another order where some are tried apart."""
        ids = list(zip(rows["shard_id"].to_pylist(), rows["index"].to_pylist(), strict=True))
        named = [(self._name, shard, index) for shard, index in ids]
        plan = self._attempts.plan(named)
        if plan is None:
            return self._ended(named, self._stage(rows))
        (parts, hopeless), results = plan, []
        for part in parts:
            these = [named[i] for i in part]
            self._attempts.begin(these)
            results.append(self._ended(these, self._stage(rows.take(part))))
        if hopeless:
            results.append(self._stage(_given_up(rows.take(hopeless), self._name)))
        return pa.concat_tables(results)

    def _ended(self, rows: list[RowId], result: pa.Table) -> pa.Table:
        self._attempts.end(rows)
        return result


def _halves(part: Positions) -> list[Positions]:
    middle = len(part) // 2
    return [part[:middle], part[middle:]] if middle else [part]


def _given_up(rows: pa.Table, stage: str) -> pa.Table:
    said = {
        "error_code": ErrorCode.WORKER_DIED,
        "error_message": f"the worker died each of the {CHANCES_ALONE} times it tried to {stage} this image alone",
    }
    for i, field in enumerate(rows.schema):
        if field.name in said:
            rows = rows.set_column(i, field, pa.array([said[field.name]] * len(rows), field.type))
        elif field.name in ("image", "pixels"):
            rows = rows.set_column(i, field, pa.nulls(len(rows), field.type))
    return rows
