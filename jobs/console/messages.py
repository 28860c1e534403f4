"""Messages for the user: records of the loggers "shardtalk.COMMAND", shown as lines on stderr. stdout is for data.

    log = logging.getLogger("shardtalk.caption")
    log.info("3 rows with errors are tried again")  # stderr: shardtalk caption: 3 rows with errors are tried again

Messages may contain file names of any origin, so control characters are escaped. A line that cannot be written (a full
disk, a closed pipe) is no failure of the command.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys

from pipeline.filenames import for_terminal

LOGGER = "shardtalk"


class _StderrHandler(logging.Handler):
    """Writes "shardtalk COMMAND: message" to the current stderr, above a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        with contextlib.suppress(OSError, ValueError):
            tqdm.write(for_terminal(f"{record.name.replace('.', ' ')}: {record.getMessage()}"), file=sys.stderr)


def show_on_stderr() -> None:
    """Shows messages on stderr from here on. Commands call it; a program that imports Shardtalk may, too."""
    logger = logging.getLogger(LOGGER)
    if not any(isinstance(handler, _StderrHandler) for handler in logger.handlers):
        logger.addHandler(_StderrHandler())
        logger.setLevel(logging.INFO)
        logger.propagate = False


def logger_of(command: str) -> logging.Logger:
    """Returns the logger of a command, such as "shardtalk caption"."""
    return logging.getLogger(command.replace(" ", "."))


def print_line(text: str) -> None:
    """Prints a line of output on stdout, escaped. Raises OSError."""
    sys.stdout.write(f"{for_terminal(text)}\n")


def open_closed_streams() -> None:
    """Connects closed standard streams (`2>&-`) to the null device; otherwise the next file opened would become one."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush_stdout() -> None:
    """Flushes stdout. Raises OSError once; what cannot be written is dropped."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
        raise
