"""Reports the progress of a captioning job to the user: the inputs found at the start, then the rows that are done."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from jobs.console.progress import ProgressBar, time_left
from pipeline.inference.run_stats import RunStats
from pipeline.output.commit_log import CommitLog
from pipeline.results.progress import Plan, committed_bytes
from pipeline.shards import Shard, ShardFormat

log = logging.getLogger("shardtalk.caption")

_NOUNS = {
    ShardFormat.IMAGE: ("image", "images"),
    ShardFormat.TAR: ("tar", "tars"),
    ShardFormat.PARQUET: ("Parquet file", "Parquet files"),
    ShardFormat.LIST: ("list", "lists"),
}


def describe_inputs(inputs: Sequence[str], shards: Sequence[Shard]) -> str:
    """Describes what the inputs hold, such as "329 images in 1 folder" or "2 images, 12 tars"."""
    counts = Counter(shard.format for shard in shards)
    found = ", ".join(_count(counts[form], *nouns) for form, nouns in _NOUNS.items() if counts[form])
    if inputs and all(Path(name).is_dir() for name in inputs):
        return f"{found} in {_count(len(inputs), 'folder', 'folders')}"
    return found


def _count(count: int, singular: str, plural: str) -> str:
    return f"{count:,} {singular if count == 1 else plural}"


def describe_job(
    inputs: Sequence[str], shards: Sequence[Shard], captioners: Sequence[str], device: str, runner: str
) -> str:
    """Describes a job in a line; `device` may be empty if it is not known yet."""
    names = f"captioner{'s' if len(captioners) > 1 else ''} {' + '.join(captioners)}"
    parts = [describe_inputs(inputs, shards), names, f"device {device}" if device else "", f"{runner} runner"]
    return "; ".join(filter(None, parts))


def report_startup(up: int, wanted: int) -> None:
    """Logs how many captioners of a Ray job are up while it waits for its first rows."""
    log.info(f"{up} of {wanted} captioners up, waiting for the cluster")


class CaptionProgress:
    """Shows the progress of a captioning job: a bar on a terminal, a line now and then in a log.

    Args:
        stats: counts of the run, updated by the caller.
        commit_log: the output's commits, updated by the caller.
        plan: what there was to do at the start of the run.
        device: what the captioner computes on, for the user.
    """

    def __init__(self, stats: RunStats, commit_log: CommitLog, plan: Plan, device: str) -> None:
        self._stats, self._commit_log, self._plan, self._device = stats, commit_log, plan, device
        self._share_at_start = self._share_of_bytes()

    def shown(self, tables: Generator[pa.Table]) -> Iterator[pa.Table]:
        """Yields the tables, shows the progress after each has been counted, and closes them in the end."""
        stats = self._stats
        bar = ProgressBar(log, unit="image", total=stats.expected_rows, initial=stats.rows)
        with contextlib.closing(tables), bar:
            for rows in tables:
                yield rows
                bar.show(stats.rows, {"errors": stats.errors}, self._line)

    def _line(self) -> str:
        stats, expected = self._stats, self._stats.expected_rows
        if expected is None:
            share, start = self._share_of_bytes(), self._share_at_start
            done = f"{stats.rows:,} images, {share:.0%} of the bytes committed"
            left_s = stats.seconds * (1.0 - share) / (share - start) if share > start else None
        else:
            done = f"{stats.rows:,} of {expected:,} images ({stats.rows / max(1, expected):.0%})"
            left_s = (expected - stats.rows) / stats.images_per_s if stats.run_rows else None
        speed = f"{stats.images_per_s:.1f} images/s on {self._device}"
        left = f"; {time_left(left_s)}" if left_s is not None else ""
        return f"{done}, {stats.errors:,} errors; {speed}{left}"

    def _share_of_bytes(self) -> float:
        return min(1.0, committed_bytes(self._commit_log) / max(1, self._plan.bytes))
