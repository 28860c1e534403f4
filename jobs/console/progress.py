"""Progress of a job on stderr: a bar on a terminal; in a log, a line now and then."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import timedelta

from tqdm import tqdm

LOG_EVERY_S = 30.0
"""Seconds between two log lines."""


class ProgressBar:
    """A progress bar, or log lines where stderr is no terminal. A context, which ends the bar.

    Args:
        log: logger of the lines.
        unit: singular noun of what is counted.
        total: final count; None if unknown.
        initial: count at the start.
    """

    def __init__(self, log: logging.Logger, *, unit: str, total: int | None = None, initial: int = 0) -> None:
        self._log = log
        self._bar = tqdm(total=total, initial=initial, unit=unit, smoothing=0.1, disable=None, dynamic_ncols=True)
        self._logged_at_s = time.monotonic()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def restart(self, title: str, total: int) -> None:
        """Starts again from 0 under another title."""
        self._bar.reset(total)
        self._bar.set_description(title, refresh=False)

    def show(self, done: int, details: Mapping[str, object], line: Callable[[], str]) -> None:
        """Shows the current count.

        Args:
            details: shown beside the bar.
            line: makes the log line; called only when one is due.
        """
        self._bar.set_postfix(details, refresh=False)
        self._bar.update(done - self._bar.n)
        if self._bar.disable and time.monotonic() >= self._logged_at_s + LOG_EVERY_S:
            self._logged_at_s = time.monotonic()
            self._log.info(line())


def time_left(seconds: float) -> str:
    """Formats a remaining time, such as "0:01:48 left"."""
    return f"{timedelta(seconds=round(seconds))} left"
