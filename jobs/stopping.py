"""SIGINT and SIGTERM: a job stops taking work, commits what is done, and can go on later."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from types import FrameType

import pyarrow as pa

from jobs.early import STOPPING


class StopRequested(BaseException):
    """Ends the waiting for more rows."""


class Stop:
    """Whether somebody asked the run to stop."""

    def __init__(self) -> None:
        self.requested = False
        self._waiting = False

    def request(self) -> None:
        """Asks. Who waits for rows, perhaps for those of a node that is gone, waits no longer."""
        self.requested = True
        if self._waiting:
            raise StopRequested

    def until_requested(self, tables: Generator[pa.Table]) -> Generator[pa.Table]:
        """The tables, until somebody asks to stop. What is under way then is not committed, and done again later."""
        with contextlib.closing(tables):
            while not self.requested:
                try:
                    self._waiting = True
                    rows = next(tables, None)
                except StopRequested:
                    return
                finally:
                    self._waiting = False
                if rows is None:
                    return
                yield rows


@contextlib.contextmanager
def stop_requests(announce: Callable[[], None], *, grace_s: float, give_up: Callable[[], None]) -> Iterator[Stop]:
    """While it lasts, the first SIGINT or SIGTERM asks to stop, which is announced; the second ends as usual.

    In another thread than the main one, which alone may handle signals, they do what they did before.

    Args:
        grace_s: `give_up` is called, in another thread, if it still lasts that long after the first.
    """
    stop, end_of_grace = Stop(), threading.Timer(grace_s, give_up)
    end_of_grace.daemon = True

    def request(number: int, frame: FrameType | None) -> None:
        for signal_number, handler in before.items():
            signal.signal(signal_number, handler)
        announce()
        end_of_grace.start()
        stop.request()

    numbers = STOPPING if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, request) for number in numbers}
    try:
        yield stop
    finally:
        end_of_grace.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
