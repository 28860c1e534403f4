"""What commands say. Names in it may be anybody's, so it is escaped. A line that nobody can read is no failure."""

from __future__ import annotations

import contextlib
import io
import os
import sys

from pipeline.filenames import for_terminal


def tell(command: str, text: str) -> None:
    """A line for the user, on stderr, above a progress bar: stdout is for data."""
    from tqdm import tqdm

    with contextlib.suppress(OSError, ValueError):  # a full disk under a log, a closed pipe
        tqdm.write(for_terminal(f"{command}: {text}"), file=sys.stderr)


def show(text: str) -> None:
    """A line on stdout. Raises OSError."""
    sys.stdout.write(f"{for_terminal(text)}\n")


def open_closed_streams() -> None:
    """Gives closed standard streams (`2>&-`) to nobody. The next file that is opened would be one of them."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which takes the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush() -> None:
    """Writes out what waits for stdout. Raises OSError, once: what cannot be written is dropped."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            nobody = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nobody, sys.stdout.fileno())
            os.close(nobody)
        raise
