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
"""Exit code of a command that was interrupted and can be resumed."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def exit_on_signals(command: str) -> None:
    """Makes SIGINT and SIGTERM end the process at once, with a line and exit code 3, while there is nothing to lose.

    A KeyboardInterrupt in the middle of an import would surface as another exception, or as a page of traceback.
    """

    def exit_now(number: int, frame: FrameType | None) -> None:
        os.write(2, f"{command}: interrupted\n".encode())
        os._exit(INTERRUPTED)

    _handle(exit_now)


def interrupt_on_signals() -> None:
    """Makes SIGINT and SIGTERM raise KeyboardInterrupt, so that what the command holds is released."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    _handle(interrupt)


@contextlib.contextmanager
def handlers_restored() -> Iterator[None]:
    """Restores the handlers of both signals afterwards."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def _handle(handler: Callable[[int, FrameType | None], None]) -> None:
    """Sets the handler of both signals, unless they are ignored, as under `nohup`."""
    if threading.current_thread() is threading.main_thread():
        for number in STOP_SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, handler)


def is_run_as_command() -> bool:
    """True in `shardtalk COMMAND` and `python -m jobs.COMMAND`, which import our code before they run any of it."""
    package, program = (__package__ or "").rpartition(".")[0], "".join(sys.argv[:1])
    if program == "-m":
        return any(word.startswith(f"{package}.") for word in sys.orig_argv)
    return os.path.basename(program) == "shardtalk"  # noqa: PTH119 - importing pathlib takes longer than all of this
