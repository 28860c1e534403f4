"""Isolation of rows that kill their worker."""

from collections.abc import Collection

import pyarrow as pa
import pytest

from pipeline.inference.fault_isolation import MAX_ATTEMPTS_ALONE, AttemptTracker, CrashIsolated


class Death(BaseException):
    """The death of a worker."""


class Mortal:
    """A stage that dies at certain rows."""

    def __init__(self, poison: Collection[int] = (), accidents: int = 0) -> None:
        self.poison, self.accidents, self.batches = poison, accidents, list[list[int]]()

    def __call__(self, rows: pa.Table) -> pa.Table:
        alive = [i for i, image in zip(rows["index"].to_pylist(), rows["image"].to_pylist(), strict=True) if image]
        self.batches.append(alive)
        if self.accidents or set(self.poison) & set(alive):
            self.accidents -= bool(self.accidents)
            raise Death
        return rows


def table(count: int) -> pa.Table:
    indexes = list(range(count))
    none = pa.nulls(count, pa.string())
    images = pa.array([b"image"] * count, pa.large_binary())
    return pa.table(
        {"shard_id": ["s"] * count, "index": indexes, "image": images, "error_code": none, "error_message": none}
    )


def until_it_lives(stage: CrashIsolated, rows: pa.Table) -> tuple[dict[int, str | None], int]:
    """Retries until all rows are done; returns error codes by index, and the number of dead workers."""
    for deaths in range(100):
        try:
            found = stage(rows).to_pylist()
        except Death:
            continue
        assert len(found) == len(rows)
        return {row["index"]: row["error_code"] for row in found}, deaths
    raise AssertionError("it never ends")


@pytest.mark.parametrize("poison", [[], [0], [6], [3, 4], [0, 1, 2, 3, 4, 5, 6]])
def test_only_the_culprits_are_errors(poison: list[int]) -> None:
    mortal = Mortal(poison)
    codes, deaths = until_it_lives(CrashIsolated(mortal, "decode", AttemptTracker()), table(7))
    assert codes == {i: "worker_died" if i in poison else None for i in range(7)}
    assert deaths <= len(poison) * (3 + MAX_ATTEMPTS_ALONE)


@pytest.mark.parametrize("accidents", [1, 2, 3])
def test_a_worker_that_dies_of_something_else_costs_no_row(accidents: int) -> None:
    codes, deaths = until_it_lives(CrashIsolated(Mortal(accidents=accidents), "decode", AttemptTracker()), table(7))
    assert set(codes.values()) == {None} and deaths == accidents


def test_an_undisturbed_batch_stays_whole() -> None:
    mortal, attempts = Mortal(), AttemptTracker()
    stage = CrashIsolated(mortal, "decode", attempts)
    assert stage(table(7)).equals(table(7)) and stage(table(7)).equals(table(7))
    assert mortal.batches == [[*range(7)]] * 2


def test_neighbours_come_in_other_batches_and_stages_unharmed() -> None:
    """Retries with other batches; another stage is not affected."""
    attempts = AttemptTracker()
    with pytest.raises(Death):
        CrashIsolated(Mortal([2]), "decode", attempts)(table(4))
    mortal = Mortal()
    CrashIsolated(mortal, "caption", attempts)(table(4))
    assert mortal.batches == [[0, 1, 2, 3]]
    mortal = Mortal()
    assert len(CrashIsolated(mortal, "decode", attempts)(table(7))) == 7
    assert mortal.batches == [[4, 5, 6], [0, 1], [2, 3]]
    CrashIsolated(mortal, "decode", attempts)(table(7))
    assert mortal.batches[3:] == [[*range(7)]]


def test_the_row_says_what_happened() -> None:
    stage = CrashIsolated(Mortal([0]), "decode", AttemptTracker())
    for _ in range(MAX_ATTEMPTS_ALONE):
        with pytest.raises(Death):
            stage(table(1))
    (row,) = stage(table(1)).to_pylist()
    assert row["error_message"] == "the worker died each of the 2 times it tried to decode this image alone"
    assert row["image"] is None
