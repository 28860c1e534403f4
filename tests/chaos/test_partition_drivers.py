"""Drivers of partitions in every order of steps, killed at every write, and all at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from conftest import Run, assert_same, pictures, rows_of, tar_of_pictures
from faults import Survived, chosen, is_full
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from memory_outputs import NEVER, Driver, Store, StoreWithoutExclusion, assert_complete, rows
from test_driver import KILLED_AT_EVERY_STEP, command

from configs.partition import Partition
from jobs.captioning.share import Share
from pipeline.errors import OutputError
from pipeline.inputs.listing import Listing
from pipeline.output import epochs, lease, retry_errors
from pipeline.output.cleanup import sweep
from pipeline.output.commit_log import CommitLog
from pipeline.output.job_record import check_output_folder, check_same_job, write_job
from pipeline.output.writer import PartWriter
from pipeline.shards import Shard

CHECKOUT = Path(__file__).parents[2]
DEADLINE_S = 300.0
JOB = {"captioner": "c", "format": "jsonl", "search": {}}
RUN = {"run": {"started": "2026-01-01T00:00:00+00:00", "seconds": 1.0, "rows": 1}, "device": "cpu", "versions": {}}
SHARDS = [Shard(f"/in/{name}.tar", "", 10, 1) for name in "abcd"]
MORE_THAN_ALL_STEPS = 48
"""More than a driver's steps before and after its writes."""
HALVES = [Partition(1, 2), Partition(2, 2)]


@pytest.fixture(autouse=True)
def _elsewhere(elsewhere: None) -> None:
    """Puts every driver on its own machine."""


def run(
    folder: Store,
    name: str,
    partition: Partition | None,
    *,
    shards: list[Shard] = SHARDS,
    failing: str = "",
    retrying: bool = False,
) -> CommitLog:
    """Performs the operations of `jobs.caption.run` on an output in their order, with a renewal before each row."""
    folder.unfinished_end = f"-{partition}.tmp"
    check_output_folder(folder)
    share = Share.find(folder, partition, ["/in"], Listing(shards))
    mine = lease.acquire(share.control)
    whole = CommitLog.load(folder)
    check_same_job(folder, whole, JOB)
    found = share.commit_log(whole)
    share = share.record(JOB)
    write_job(folder, JOB)
    mine.start(found, JOB)
    if retrying:
        retry_errors.uncommit_errors(folder, found, share.input.shards, mine)
    left = [span.shard for span in found.remaining_work(share.input.shards)]
    sweep(folder, found, confirm=mine.confirm, partition=partition)
    part_writer = PartWriter(
        folder,
        found,
        file_format="jsonl",
        rows_per_file=1,
        commit_interval_s=1e9,
        confirm=mine.confirm,
        epoch=mine.epoch.id,
        partition=partition,
    )
    for table in rows(left, name, failing):
        mine.renew()
        part_writer.write(table)
    part_writer.commit()
    mine.confirm()
    share.finish(found, job=JOB, run=RUN, is_new=bool(left), confirm=mine.confirm)
    mine.release()
    return found


def driver(kind: type[Store], files: dict[str, bytes], partition: Partition | None, **options: bool) -> Driver:
    return Driver(lambda step: run(kind(files, step), "a driver", partition, **options))


def counting(files: dict[str, bytes]) -> dict[str, bytes]:
    """Returns the parts whose commits count."""
    return {commit.file: files[commit.file] for commit in CommitLog.load(Store(files)).commits}


def assert_each_shard_once(files: dict[str, bytes]) -> None:
    """Asserts that no shard has rows twice, finished or not."""
    shards = Counter(path for commit in CommitLog.load(Store(files)).commits for path in commit.paths.values())
    assert not [path for path, times in shards.items() if times > 1]


def assert_mended(files: dict[str, bytes]) -> None:
    """Asserts that the same commands again leave a complete output and no other files."""
    for partition in HALVES:
        run(Store(files), "after", partition)
    assert_complete(files, SHARDS)


def finished(failing: str = "") -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for partition in HALVES:
        run(Store(files), "before", partition, failing=failing)
    return files


def steps_of(kind: type[Store], files: dict[str, bytes], *, retrying: bool) -> int:
    alone = driver(kind, dict(files), HALVES[0], retrying=retrying)
    steps = 0
    while not alone.ended:
        alone.go(1)
        steps += 1
    assert alone.failure is None
    return steps


@pytest.mark.parametrize("before", ["a new output", "an output with errors to retry"])
@pytest.mark.parametrize("kind", [Store, StoreWithoutExclusion])
def test_a_driver_that_wakes_after_all_others_finished_spoils_nothing(
    kind: type[Store], before: str, survived: Survived
) -> None:
    start, retrying = ({}, False) if before == "a new output" else (finished("abcd"), True)
    steps = steps_of(kind, start, retrying=retrying)
    for stop in chosen(range(1, steps + 1), few=12):
        files = dict(start)
        slow, same, other = (driver(kind, files, each, retrying=retrying) for each in (HALVES[0], *HALVES))
        slow.go(stop)
        for each in (other, same):
            each.go(NEVER)
            assert each.failure is None, (stop, each.failure)
        at_end = counting(files)
        assert len(at_end) == len(SHARDS)
        slow.go(NEVER)
        if slow.failure is not None:  # else it had begun nothing yet, and found nothing to do
            assert isinstance(slow.failure, OutputError | OSError) and counting(files) == at_end, stop
        assert_mended(files)
        survived("driver of a partition paused at a step, continued after the others finished", "no difference")


turns = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 25)), max_size=30)


@settings(
    max_examples=2000 if is_full() else 25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example([(3, 20)], StoreWithoutExclusion, False)  # a driver of three partitions is slow to claim the output
@example([(4, 18)], StoreWithoutExclusion, False)  # and one of the whole
@given(turns, st.sampled_from([Store, StoreWithoutExclusion]), st.booleans())
def test_drivers_by_turns_leave_what_the_same_commands_mend(
    turns: list[tuple[int, int]], kind: type[Store], retrying: bool
) -> None:
    """Two drivers of partition 1, one of 2, one of another number of partitions, and one of the whole output."""
    files = finished("ac") if retrying else {}
    partitions = [HALVES[0], HALVES[0], HALVES[1], Partition(1, 3), None]
    drivers = [driver(kind, files, partition, retrying=retrying) for partition in partitions]
    drivers[0].go(1)
    for number, steps in turns:
        drivers[number].go(steps)
        assert_each_shard_once(files)
    for each in drivers:
        each.go(NEVER)
        assert each.failure is None or isinstance(each.failure, OutputError | OSError), each.failure
        assert_each_shard_once(files)
    if epochs.newest_claim(Store(files)).partitions == len(HALVES):
        assert_mended(files)


@pytest.mark.parametrize("store", ["disk", "S3"])
def test_killed_before_and_after_every_write_of_each_partition(  # noqa: PLR0917
    store: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    captioner: Path,
    caption: Run,
    shardtalk: Run,
    survived: Survived,
) -> None:
    inputs = [pictures(tmp_path / "in", 3), *(tar_of_pictures(tmp_path / f"{i}.tar", 2, first=9 * i) for i in (1, 2))]
    assert caption(*inputs)[0] == 0
    undisturbed = rows_of(tmp_path / "out")
    where = str(tmp_path / "killed") if store == "disk" else f"{request.getfixturevalue('bucket').url}/killed"
    places = chosen(range(1, MORE_THAN_ALL_STEPS), few=9 if store == "disk" else 4)
    for partition in ("1/2", "2/2"):
        arguments = command(captioner, *inputs, "--partition", partition)
        done = subprocess.run(
            [sys.executable, "-c", KILLED_AT_EVERY_STEP, where, str(places), *arguments],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=True,
            timeout=10 * DEADLINE_S,
        )
        ends = [tuple(map(int, line.split()[1:])) for line in done.stdout.splitlines()]
        killed = sum(first == -signal.SIGKILL for first, _ in ends)
        # It is killed at each of its steps; there are fewer than the last place.
        assert ends == [(-signal.SIGKILL, 0)] * killed + [(0, 0)] * (len(places) - killed), done.stderr
        assert 0 < killed < len(places)
        survived(f"SIGKILL of a partition's driver before or after a write, {store}", "the same command does the rest")
    for n in places:
        assert_same(rows_of(f"{where}/{n}"), undisturbed)
        assert shardtalk("verify", f"{where}/{n}", *inputs)[0] == 0
    assert not list(tmp_path.rglob("*.tmp"))


def test_all_at_once_as_processes(tmp_path: Path, captioner: Path, caption: Run, shardtalk: Run) -> None:
    inputs = [pictures(tmp_path / "in", 9), *(tar_of_pictures(tmp_path / f"{i}.tar", 3, first=9 * i) for i in range(5))]
    out = tmp_path / "out"
    commands = [command(captioner, *inputs, "--output", out, "--partition", f"{i}/3") for i in (1, 2, 3)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", *each],
            cwd=CHECKOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for each in commands
    ]
    said = [process.communicate(timeout=DEADLINE_S)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert any("the output is complete" in each for each in said)
    assert shardtalk("verify", out, *inputs)[0] == 0
    assert caption(*inputs, output=tmp_path / "whole")[0] == 0
    assert_same(rows_of(out), rows_of(tmp_path / "whole"))
