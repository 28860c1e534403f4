"""Two drivers of one output, in every order of steps in which one driver is paused and continues.

The output is in memory, and each thing that a driver asks of it is a step. Drivers are elsewhere to each other: one
that is stopped is silent, so the other takes over. What the first does when it goes on must change nothing that counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from faults import Survived, chosen, is_full
from memory_outputs import NEVER, Driver, Store, StoreWithoutExclusion, assert_complete, rows

from pipeline.output import lease, retry_errors
from pipeline.output.cleanup import sweep
from pipeline.output.commit_log import CommitLog
from pipeline.output.job_record import check_output_folder, check_same_job, write_job
from pipeline.output.manifest import finish, is_finished
from pipeline.output.writer import PartWriter
from pipeline.shards import Shard

JOB = {"captioner": "c", "format": "jsonl", "search": {}}
SHARDS = [Shard(f"/in/{name}.jpg", f"{name}.jpg", 10, 1) for name in "abcd"]


def run(folder: Store, name: str, *, failing: str = "", retrying: bool = False, part_rows: int = 1) -> CommitLog:
    """Performs the operations of `jobs.caption.run` on an output in their order, with a renewal before each row."""
    check_output_folder(folder)
    mine = lease.acquire(folder)
    found = CommitLog.load(folder)
    check_same_job(folder, found, JOB)
    write_job(folder, JOB)
    mine.start(found, JOB)
    if retrying:
        retry_errors.uncommit_errors(folder, found, SHARDS, mine)
    left = [span.shard for span in found.remaining_work(SHARDS)]
    sweep(folder, found, confirm=mine.confirm)
    part_writer = PartWriter(
        folder,
        found,
        file_format="jsonl",
        rows_per_file=part_rows,
        commit_interval_s=1e9,
        confirm=mine.confirm,
        epoch=mine.epoch.id,
    )
    for table in rows(left, name, failing):
        mine.renew()
        part_writer.write(table)
    part_writer.commit()
    mine.confirm()
    if left or not is_finished(folder, found):
        finish(folder, found, job=JOB, run={}, confirm=mine.confirm)
    mine.release()
    return found


def driver(kind: type[Store], files: dict[str, bytes], name: str, **options: Any) -> Driver:
    return Driver(lambda step: run(kind(files, step), name, **options))


@pytest.fixture(autouse=True)
def _elsewhere(elsewhere: None) -> None:
    """Puts every driver on its own machine."""


BEFORE: dict[str, Callable[[], dict[str, bytes]]] = {
    "a new output": dict,
    "an output that is begun": lambda: begun_output(),  # noqa: PLW0108 - it comes later
    "an output with errors to retry": lambda: finished_output("acd"),
}


def finished_output(failing: str = "") -> dict[str, bytes]:
    """An output of two parts with two rows each."""
    files: dict[str, bytes] = {}
    run(Store(files), "before", failing=failing, part_rows=2)
    return files


def begun_output() -> dict[str, bytes]:
    """An output of one part with two rows."""
    files = finished_output()
    return {name: data for name, data in files.items() if b"/in/c.jpg" not in data and name != "_manifest.json"}


def counting(files: dict[str, bytes]) -> dict[str, bytes]:
    """Returns the parts whose commits count."""
    return {commit.file: files[commit.file] for commit in CommitLog.load(Store(files)).commits}


RETRYING = {"neither": (False, False), "both": (True, True), "slow": (True, False), "other": (False, True)}
"""Which of the drivers retries errors: the slow one, the other one."""


def assert_mended(files: dict[str, bytes]) -> None:
    """Asserts that the same command again leaves a complete output and no other files."""
    run(Store(files), "after")
    assert_complete(files, SHARDS)


def steps_of(kind: type[Store], before: dict[str, bytes], *, retrying: bool) -> int:
    alone = driver(kind, dict(before), "alone", retrying=retrying)
    steps = 0
    while not alone.ended:
        alone.go(1)
        steps += 1
    assert alone.failure is None
    return steps


@pytest.mark.parametrize("retrying", RETRYING)
@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("kind", [Store, StoreWithoutExclusion])
def test_a_driver_that_wakes_after_another_finished_spoils_nothing(
    kind: type[Store], before: str, retrying: str, survived: Survived
) -> None:
    start = BEFORE[before]()
    steps = steps_of(kind, start, retrying=RETRYING[retrying][0])
    for stop in chosen(range(1, steps + 1), few=12):
        files = dict(start)
        slow, other = (driver(kind, files, "a driver", retrying=retries) for retries in RETRYING[retrying])
        slow.go(stop)
        other.go(NEVER)
        assert other.failure is None and other.commit_log is not None, stop
        finished = counting(files)
        assert len(finished) == len(other.commit_log.commits)
        slow.go(NEVER)
        if slow.failure is not None:  # else it had begun nothing yet, and did its own work after the other's
            assert counting(files) == finished, stop
        assert_mended(files)
        survived(
            "driver paused at a step, and continued after another driver finished", "what it writes does not count"
        )


@pytest.mark.parametrize("retrying", RETRYING)
@pytest.mark.parametrize("before", BEFORE)
def test_two_drivers_by_turns_leave_what_the_same_command_mends(before: str, retrying: str, survived: Survived) -> None:
    start = BEFORE[before]()
    steps = steps_of(Store, start, retrying=RETRYING[retrying][0])
    for first, second, third in itertools.product(*[chosen(range(1, steps + 1, 2 * is_full() + 1), few=3)] * 3):
        files = dict(start)
        slow, other = (driver(Store, files, "a driver", retrying=retries) for retries in RETRYING[retrying])
        for one, times in ((slow, first), (other, second), (slow, third), (other, NEVER)):
            one.go(times)
        finished = counting(files)
        slow.go(NEVER)
        if other.failure is None and slow.failure is not None:
            assert counting(files) == finished, (first, second, third)
        assert_mended(files)
        survived("two drivers whose steps alternate", "after the same command again, each row is there once")
