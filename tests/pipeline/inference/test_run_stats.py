"""The statistics of a run."""

import pyarrow as pa
import pytest

from pipeline.inference.run_stats import RunStats
from pipeline.output.commit_log import Commit, CommitLog
from pipeline.schema import CAPTIONED


def rows(count: int, *, caption_s: float, batch_images: int, error: str | None = None) -> pa.Table:
    row = {"num_bytes": 100, "read_s": 0.5, "decode_s": 3.0, "caption_s": caption_s, "batch_images": batch_images}
    return pa.Table.from_pylist([{"error_code": error, **row}] * count, schema=CAPTIONED)


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> RunStats:
    """Returns the statistics after 100 s, of which 20 passed before the first rows."""
    clock = [0.0]
    monkeypatch.setattr("pipeline.inference.run_stats.time.perf_counter", lambda: clock[0])
    made = RunStats(CommitLog(), lambda: {"read": 1, "decode": 4, "caption": 1})
    clock[0] = 20.0
    made.count(rows(8, caption_s=4.0, batch_images=8))
    with made.writing():
        clock[0] = 25.0
    made.count(rows(2, caption_s=9.0, batch_images=2, error="corrupt_image"))
    clock[0] = 100.0
    return made


def test_bytes_of_a_shard_that_are_lost_are_no_image_s(report: RunStats) -> None:
    report.count(rows(3, caption_s=0.0, batch_images=1, error="corrupt_shard"))
    assert (report.errors, report.bytes) == (5, 1000)


def test_rows_errors_and_bytes_are_counted(report: RunStats) -> None:
    assert (report.rows, report.errors, report.bytes) == (10, 2, 1000)
    assert report.images_per_s == pytest.approx(0.1)
    assert report.batch_images == pytest.approx(5)


def test_the_busiest_stage_is_the_bottleneck_whatever_the_others_have_in_parallel(report: RunStats) -> None:
    assert report.utilization == pytest.approx(
        {"caption": 0.5, "start-up": 0.2, "decode": 0.075, "read": 0.05, "write": 0.05}
    )
    assert report.record()["bottleneck"] == "caption"


@pytest.mark.parametrize(("max_error_rate", "min_rows", "rotten"), [(0.1, 10, True), (0.2, 0, False), (0.1, 11, False)])
def test_a_run_is_rotten_with_more_errors_than_allowed(
    max_error_rate: float, min_rows: int, rotten: bool, report: RunStats
) -> None:
    assert report.exceeds_error_rate(max_error_rate, min_rows) == rotten


def test_earlier_runs_count_for_the_rows_and_not_for_the_speed(report: RunStats) -> None:
    commit_log = CommitLog()
    commit_log.add(Commit("part", 7, {"unreadable": 2}, "", "", [], {}, committed=0.0))
    later = RunStats(commit_log, dict)
    assert (later.rows, later.errors, later.run_rows, later.images_per_s, later.batch_images) == (7, 2, 0, 0.0, 0.0)


def test_captioners_that_joined_late_could_work_only_since(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, captioners = [0.0], [1]
    monkeypatch.setattr("pipeline.inference.run_stats.time.perf_counter", lambda: clock[0])
    stats = RunStats(CommitLog(), lambda: {"caption": captioners[0]})
    clock[0], captioners[0] = 60.0, 3
    stats.count(rows(1, caption_s=60.0, batch_images=1))  # one captioner in 60 s
    clock[0] = 100.0
    stats.count(rows(2, caption_s=60.0, batch_images=1))  # three in 40 s
    assert stats.utilization["caption"] == pytest.approx(1.0)
