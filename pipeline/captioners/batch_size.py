"""The batch size of a captioner on a GPU, found by trial."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa
import torch

SMALLEST = 64
"""Number of images in the first trial."""
ROUNDS = 4
"""Runs of a trial, of which the fastest counts; the first ones choose kernels and capture graphs."""
WAIT_S = 10.0
"""Seconds to wait for the rows of a trial: slow ones are better captioned as they come."""
LEAST_GAIN = 1.03
"""Factor of the images/s by which a batch of twice the size must be faster."""


def find_batch_size(
    caption: Callable[[int], object], *, largest: int, clock: Callable[[], float] = time.perf_counter
) -> tuple[int, dict[int, float]]:
    """Doubles the batch size while that makes captioning faster and memory lasts.

    Args:
        caption: captions that many images.
        largest: the largest size to try.
        clock: the time in seconds.

    Returns:
        The size, and the images/s of all sizes that were tried.
    """
    found, rates = SMALLEST, dict[int, float]()
    for size in (SMALLEST << doublings for doublings in range(largest.bit_length())):
        if size > largest:
            break
        try:
            rates[size] = size / min(_seconds(caption, size, clock) for _ in range(ROUNDS))
        except torch.OutOfMemoryError:
            found = min(found, max(1, size // 4))  # as the next batch is begun meanwhile, two are in memory
            break
        if rates[size] < LEAST_GAIN * rates.get(size // 2, 0.0):
            break
        found = size
    return found, rates


def _seconds(caption: Callable[[int], object], size: int, clock: Callable[[], float]) -> float:
    began = clock()
    caption(size)
    return clock() - began


def take_rows(
    tables: Iterator[pa.Table], count: int, *, clock: Callable[[], float] = time.perf_counter
) -> list[pa.Table]:
    """Takes tables until they have that many rows, or there are no more, or they come slowly."""
    taken, began = list[pa.Table](), clock()
    while sum(map(len, taken)) < count and clock() - began < WAIT_S and (rows := next(tables, None)) is not None:
        taken.append(rows)
    return taken


def in_batches(tables: Iterable[pa.Table], batch_size: int) -> Iterator[pa.Table]:
    """Yields the rows of the tables, in order, in tables of `batch_size` rows; the last may be smaller."""
    waiting, count = list[pa.Table](), 0
    for rows in tables:
        waiting, count = [*waiting, rows], count + len(rows)
        while count >= batch_size:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, batch_size)
            waiting, count = [whole.slice(batch_size)], count - batch_size
    if count:
        yield pa.concat_tables(waiting)
