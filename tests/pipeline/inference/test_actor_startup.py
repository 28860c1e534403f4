"""Reports of the number of captioners that are up, until the first rows arrive."""

import threading
from collections.abc import Iterator

import pyarrow as pa
import pytest

from pipeline.inference import actor_startup
from pipeline.inference.actor_startup import StartupCounter, report_until_first

TABLES = [pa.table({"a": [1]}), pa.table({"a": [2, 3]})]
DEADLINE_S = 60.0


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actor_startup, "POLL_S", 0.001)


def test_each_new_number_is_reported_once_until_rows_arrive(at_once: None) -> None:
    numbers, told, last = iter([0, 0, 1, 1, 2]), list[tuple[int, int]](), threading.Event()

    def tables() -> Iterator[pa.Table]:
        assert last.wait(DEADLINE_S)
        yield from TABLES

    def count() -> int:
        number = next(numbers, 2)
        if number == 2:
            last.set()
        return number

    found = list(report_until_first(tables(), count, 3, lambda up, wanted: told.append((up, wanted))))
    assert found == TABLES
    assert told[:2] == [(0, 3), (1, 3)] and len(told) == len(set(told))


def test_nothing_is_reported_where_all_captioners_are_up(at_once: None) -> None:
    told, asked = list[tuple[int, int]](), threading.Event()

    def tables() -> Iterator[pa.Table]:
        assert asked.wait(DEADLINE_S)
        yield from TABLES

    def count() -> int:
        asked.set()
        return 3

    assert list(report_until_first(tables(), count, 3, lambda up, wanted: told.append((up, wanted)))) == TABLES
    assert told == []


def test_an_actor_that_starts_again_counts_once() -> None:
    counter = StartupCounter()
    for actor in ("a", "b", "a"):
        counter.add(actor)
    assert counter.count() == 2
