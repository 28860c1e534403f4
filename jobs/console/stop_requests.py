"""SIGINT and SIGTERM ask a job to stop: it takes no more work, commits what is done, and can be resumed later."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from types import FrameType

import pyarrow as pa

from jobs.console.startup_signals import STOP_SIGNALS


class StopRequested(BaseException):
    """Raised by a stop request to end the wait for more rows."""


class StopRequest:
    """A request to stop the job, which a signal makes and the flow polls."""

    def __init__(self) -> None:
        self.requested = False
        self._waiting = False

    def request(self) -> None:
        """Asks the job to stop. If it waits for rows, perhaps from a node that is gone, the wait ends."""
        self.requested = True
        if self._waiting:
            raise StopRequested

    def until_requested(self, tables: Generator[pa.Table]) -> Generator[pa.Table]:
        """Yields tables until a stop is requested. Tables in progress then are dropped, and computed again later."""
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
def stop_on_signals(
    announce: Callable[[], None], *, timeout_s: float, give_up: Callable[[], None]
) -> Iterator[StopRequest]:
    """Handles signals in its block: the first SIGINT or SIGTERM requests a stop, the second has its usual effect.

    Outside the main thread, which alone may handle signals, it changes nothing.

    Args:
        announce: called on the first signal.
        timeout_s: seconds after the first signal at which `give_up` is called, unless the block has ended.
        give_up: called in another thread.
    """
    stop, timer = StopRequest(), threading.Timer(timeout_s, give_up)
    timer.daemon = True

    def request(number: int, frame: FrameType | None) -> None:
        for signal_number, handler in before.items():
            signal.signal(signal_number, handler)
        announce()
        timer.start()
        stop.request()

    numbers = STOP_SIGNALS if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, request) for number in numbers}
    try:
        yield stop
    finally:
        timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
