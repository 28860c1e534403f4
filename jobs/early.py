"""Signals in the first seconds, while modules are imported. Imports nothing heavy itself."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

INTERRUPTED = 3
STOPPING = (signal.SIGINT, signal.SIGTERM)


def end_at_signals(name: str) -> None:
    """From here on SIGINT and SIGTERM end the process at once, with a line and exit code 3: there is nothing to lose.

    A KeyboardInterrupt in the middle of an import would come out as something else, or with a page of traceback.
    """

    def end(number: int, frame: FrameType | None) -> None:
        os.write(2, f"{name}: interrupted\n".encode())
        os._exit(INTERRUPTED)

    _handle(end)


def interrupt_at_signals() -> None:
    """From here on both raise KeyboardInterrupt, so that what is held is given back."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    _handle(interrupt)


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Afterwards the signals do what they did before."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def _handle(handler: Callable[[int, FrameType | None], None]) -> None:
    """Where nobody asked to ignore them, as `nohup` does."""
    if threading.current_thread() is threading.main_thread():
        for number in STOPPING:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, handler)


def is_run_as_module() -> bool:
    """Whether this is `python -m jobs.VERB`, which imports the verb before it runs anything of ours."""
    return sys.argv[:1] == ["-m"] and any(word.startswith(f"{__package__}.") for word in sys.orig_argv)
