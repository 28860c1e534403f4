"""Counts rows, errors and time per stage of a run, from the rows as they arrive from either runner."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.output.commit_log import CommitLog
from pipeline.output.part_summary import SHARD_ERRORS, SHARD_OR_IMAGE_ERRORS, count_errors

STAGES = ("read", "decode", "caption")
"""Stages whose time the rows report in the columns of `schema.MEASURES`."""
WRITE, START_UP = "write", "start-up"
SLOTS_S = 10.0
"""Seconds after which the number of workers is asked for again."""


class RunStats:
    """The statistics of one run.

    Args:
        commit_log: the output's commits at the start of the run.
        slots: returns, by stage, the number of workers that can run it at the same time now.
        expected_rows: total number of rows of the output; None if unknown.
    """

    def __init__(
        self, commit_log: CommitLog, slots: Callable[[], Mapping[str, float]], *, expected_rows: int | None = None
    ) -> None:
        self.expected_rows = expected_rows
        self._before = commit_log.rows
        self._slots, self._slots_now, self._slots_since = slots, slots(), 0.0
        self._slot_s: Counter[str] = Counter()
        self._errors_before = sum(commit_log.errors.values())
        self._started, self._clock = time.time(), time.perf_counter()
        self._batches = 0.0
        self.run_rows = self.bytes = 0
        self.run_errors: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()
        """Number of ignored files inside shards (no images, no siblings), by kind."""
        self.busy_s = dict.fromkeys((*STAGES, WRITE, START_UP), 0.0)
        """Seconds by stage, summed over its slots."""

    def count(self, rows: pa.Table) -> None:
        """Adds rows of `schema.CAPTIONED`."""
        if not self.run_rows:
            self.busy_s[START_UP] = self.seconds
        if self.seconds - self._slots_since >= SLOTS_S:
            self._slot_s, self._slots_now, self._slots_since = self._slot_seconds(), self._slots(), self.seconds
        self.run_rows += len(rows)
        self.run_errors.update(count_errors(rows))
        for kinds in rows["ignored"].drop_null().to_pylist():
            self.ignored.update(json.loads(kinds))
        of_images = pc.invert(pc.is_in(rows["error_code"], pa.array(sorted(SHARD_ERRORS | SHARD_OR_IMAGE_ERRORS))))
        self.bytes += pc.sum(rows["num_bytes"].filter(of_images)).as_py() or 0
        self._batches += pc.sum(pc.divide(1.0, rows["batch_images"])).as_py() or 0.0
        for stage in STAGES:
            self.busy_s[stage] += pc.sum(rows[f"{stage}_s"]).as_py() or 0.0

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Counts the duration of the context as time of writing."""
        began = time.perf_counter()
        yield
        self.busy_s[WRITE] += time.perf_counter() - began

    @property
    def rows(self) -> int:
        """Number of rows of this run and earlier ones."""
        return self._before + self.run_rows

    @property
    def errors(self) -> int:
        """Number of rows without a caption of this run and earlier ones."""
        return self._errors_before + self.run_errors.total()

    @property
    def seconds(self) -> float:
        """Seconds since the start of this run."""
        return time.perf_counter() - self._clock

    @property
    def images_per_s(self) -> float:
        """Rows per second of this run."""
        return self.run_rows / max(self.seconds, 1e-9)

    @property
    def batch_images(self) -> float:
        """Average number of images per batch."""
        return self.run_rows / self._batches if self._batches else 0.0

    @property
    def utilization(self) -> dict[str, float]:
        """Share of the run in which each stage worked, the busiest first. Start-up lasts until the first rows."""
        available = self._slot_seconds()
        shares = {stage: seconds / (available[stage] or self.seconds) for stage, seconds in self.busy_s.items()}
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    def _slot_seconds(self) -> Counter[str]:
        """Returns, by stage, how long its workers could have run so far, in seconds summed over them."""
        since = self.seconds - self._slots_since
        return self._slot_s + Counter({stage: slots * since for stage, slots in self._slots_now.items()})

    def exceeds_error_rate(self, max_error_rate: float, min_rows: int) -> bool:
        """Returns whether the share of errors exceeds `max_error_rate`; False with fewer than `min_rows` rows."""
        return self.rows >= max(1, min_rows) and self.errors > max_error_rate * self.rows

    def totals(self) -> dict[str, Any]:
        """Returns the totals of this run as arguments of `cluster.metrics.Metrics.publish`."""
        return {
            "images": self.run_rows - self.run_errors.total(),
            "errors": self.run_errors,
            "image_bytes": self.bytes,
            "busy_s": self.busy_s,
            "batch_images": self.batch_images,
        }

    def record(self) -> dict[str, Any]:
        """Returns the statistics as JSON for the manifest."""
        utilization = self.utilization
        return {
            "started": datetime.fromtimestamp(self._started, UTC).isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 3),
            "rows": self.run_rows,
            "errors": dict(self.run_errors),
            "ignored": dict(self.ignored),
            "image_bytes": self.bytes,
            "images_per_s": round(self.images_per_s, 2),
            "batch_images": round(self.batch_images, 2),
            "busy_s": {stage: round(seconds, 3) for stage, seconds in self.busy_s.items()},
            "busy": {stage: round(share, 4) for stage, share in utilization.items()},
            "bottleneck": next(iter(utilization)),
        }
