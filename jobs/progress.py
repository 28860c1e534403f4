"""What a user sees of training."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from jobs import terminal
from jobs.stopping import Stop
from pipeline.training.config import Progress

SHOWN_EVERY_S = 30.0


class Shown:
    """The `Reporter` of a run: a bar on a terminal, a line now and then in a log, on stderr; on stdout a line of JSON
    for each epoch. A context, which ends the bar.
    """

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._bar = tqdm(unit="step", smoothing=0.1, disable=None, dynamic_ncols=True)
        self._epoch = ("", 0)
        self._said_s = time.monotonic()

    def __enter__(self) -> Shown:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    @property
    def stop(self) -> bool:
        """Whether a signal asked to."""
        return self._stop.requested

    def progress(self, progress: Progress) -> None:
        """Shows loss, speed, and how long the epoch will take."""
        title = f"{progress.stage} {progress.epoch}/{progress.epochs}"
        if self._epoch != (progress.stage, progress.epoch):
            self._epoch = (progress.stage, progress.epoch)
            self._bar.reset(progress.steps)
            self._bar.set_description(title, refresh=False)
        speed = {"images/s": f"{progress.images_per_s:.1f}", "tokens/s": f"{progress.tokens_per_s:.0f}"}
        self._bar.set_postfix({"loss": f"{progress.loss:.3f}"} | speed, refresh=False)
        self._bar.update(progress.step - self._bar.n)
        if self._bar.disable and time.monotonic() >= self._said_s + SHOWN_EVERY_S:
            self._said_s = time.monotonic()
            left_s = (progress.steps - progress.step) * progress.step_s
            say(
                f"{title}, step {progress.step:,} of {progress.steps:,}: loss {progress.loss:.3f}, "
                f"{progress.images_per_s:.1f} images/s, {progress.tokens_per_s:.0f} tokens/s; {left_s:.0f} s left"
            )

    def epoch(self, report: Mapping[str, Any]) -> None:
        """Prints it."""
        with tqdm.external_write_mode(file=sys.stdout):
            sys.stdout.write(json.dumps(report) + "\n")
            sys.stdout.flush()


def say(text: str) -> None:
    """A line for the user, on stderr: stdout is for data."""
    terminal.tell("shardtalk train", text)
