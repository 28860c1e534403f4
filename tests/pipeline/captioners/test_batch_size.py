"""The batch size that is found by trial, and rows divided into batches anew."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.captioners.batch_size import ROUNDS, SMALLEST, WAIT_S, find_batch_size, in_batches, take_rows


class Device:
    """A device that captions in a time that follows from the batch size, without that time passing.

    Args:
        seconds: of a batch, by its size; None where its memory is too small.
    """

    def __init__(self, seconds: Callable[[int], float | None]) -> None:
        self._seconds, self.now, self.sizes = seconds, 0.0, list[int]()

    def caption(self, size: int) -> None:
        self.sizes.append(size)
        seconds = self._seconds(size)
        if seconds is None:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.now += seconds * (5 if self.sizes.count(size) == 1 else 1)  # the first batch of a size takes longer

    def clock(self) -> float:
        return self.now


def found_on(device: Device, largest: int = 1024) -> int:
    size, rates = find_batch_size(device.caption, largest=largest, clock=device.clock)
    assert list(rates) == sorted(rates)
    return size


def test_the_size_grows_while_an_image_takes_less_time() -> None:
    device = Device(lambda size: 0.1 + 0.001 * size if size <= 256 else 0.0014 * size)
    assert found_on(device) == 256
    assert max(device.sizes) == 512


def test_a_size_that_gains_next_to_nothing_is_not_taken() -> None:
    assert found_on(Device(lambda size: 0.001 + 0.001 * size)) == SMALLEST


@pytest.mark.parametrize("largest", [64, 100, 500, 1024])
def test_no_size_is_larger_than_there_are_images(largest: int) -> None:
    device = Device(lambda size: 1.0)
    assert found_on(device, largest) <= largest < 2 * found_on(device, largest)
    assert max(device.sizes) <= largest


def test_two_batches_fit_into_memory() -> None:
    assert found_on(Device(lambda size: 1.0 if size < 1024 else None)) == 256
    assert found_on(Device(lambda size: None)) == SMALLEST // 4


def test_each_size_is_tried_a_few_times() -> None:
    device = Device(lambda size: 1.0)
    found_on(device, 256)
    assert device.sizes == [size for size in (64, 128, 256) for _ in range(ROUNDS)]


def numbered(*counts: int) -> list[pa.Table]:
    numbers = iter(range(sum(counts)))
    return [pa.table({"number": pa.array([next(numbers) for _ in range(count)], pa.int64())}) for count in counts]


@given(st.lists(st.integers(0, 9)), st.integers(1, 7))
def test_batches_have_all_rows_in_order(counts: list[int], batch_size: int) -> None:
    batches = list(in_batches(numbered(*counts), batch_size))
    assert [number for batch in batches for number in batch["number"].to_pylist()] == list(range(sum(counts)))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert all(0 < len(batch) <= batch_size for batch in batches)


def test_slow_tables_are_not_waited_for() -> None:
    times = iter([0.0, 1.0, 2.0, 9.0, WAIT_S + 1.0])
    tables = iter(numbered(3, 2, 4, 5, 6))
    assert [len(rows) for rows in take_rows(tables, 99, clock=times.__next__)] == [3, 2, 4]
    assert len(next(tables)) == 5


def test_no_more_tables_are_taken_than_needed() -> None:
    tables = iter(numbered(3, 2, 4))
    assert [len(rows) for rows in take_rows(tables, 4)] == [3, 2]
    assert [len(rows) for rows in take_rows(tables, 9)] == [4]
