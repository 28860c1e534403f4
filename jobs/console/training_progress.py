"""Progress of training: steps on stderr, a JSON line per epoch on stdout."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from jobs.console.progress import ProgressBar, time_left
from jobs.console.stop_requests import StopRequest
from pipeline.training.config import Progress

log = logging.getLogger("shardtalk.train")


class TrainingProgress:
    """The `Callback` of a training run. A context, which ends the progress bar."""

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop
        self._bar = ProgressBar(log, unit="step")
        self._epoch = ("", 0)

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.__exit__()

    @property
    def stop(self) -> bool:
        """True once a signal has requested a stop."""
        return self._stop.requested

    def progress(self, progress: Progress) -> None:
        """Shows loss, speed, and the time left in the epoch."""
        title = f"{progress.stage} {progress.epoch}/{progress.epochs}"
        if self._epoch != (progress.stage, progress.epoch):
            self._epoch = (progress.stage, progress.epoch)
            self._bar.restart(title, progress.steps)
        details = {
            "loss": f"{progress.loss:.3f}",
            "images/s": f"{progress.images_per_s:.1f}",
            "tokens/s": f"{progress.tokens_per_s:.0f}",
        }

        def line() -> str:
            left = time_left((progress.steps - progress.step) * progress.step_s)
            values = ", ".join(f"{name} {value}" for name, value in details.items())
            share = progress.step / progress.steps
            return f"{title}, step {progress.step:,} of {progress.steps:,} ({share:.0%}): {values}; {left}"

        self._bar.show(progress.step, details, line)

    def epoch(self, report: Mapping[str, Any]) -> None:
        """Prints the report of an epoch."""
        with tqdm.external_write_mode(file=sys.stdout):
            sys.stdout.write(json.dumps(report) + "\n")
            sys.stdout.flush()
