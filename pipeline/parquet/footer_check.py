"""Checks the footers of Parquet files in a process of its own, which a damaged footer may end.

pyarrow (26.0) describes a column of a row group without catching the exceptions of its C++ code, and so aborts the
process that asks for one with, say, a histogram of the wrong length.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
from typing import BinaryIO

from pipeline.errors import DataError
from pipeline.schema import ErrorCode

MAGIC = b"PAR1"
_LENGTH_BYTES = 4
_END_BYTES = _LENGTH_BYTES + len(MAGIC)
TAIL_BYTES = 64 << 10
"""Number of bytes that are read first, in which most footers are whole: a store is then asked once."""
_SOUND = b"."
TRIES = 2
"""Number of processes that a footer may end by another signal than SIGABRT: somebody else may have sent the first."""


class FooterChecker:
    """A process that is asked about one footer after the other, by any thread, and is replaced when one ends it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def is_sound(self, footer: bytes) -> bool:
        """Returns False if describing this footer's columns ends a process. Raises RuntimeError if none can run."""
        with self._lock:
            for _ in range(TRIES):
                process = self._running()
                assert process.stdin and process.stdout
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(len(footer).to_bytes(_LENGTH_BYTES, "little") + footer)
                    process.stdin.flush()
                if process.stdout.read(1) == _SOUND:
                    return True
                self._process = None
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
                process.stdout.close()
                ended_by = -process.wait()
                if ended_by < 0:
                    raise RuntimeError(f"the process that checks Parquet footers ended with exit code {-ended_by}")
                if ended_by == signal.SIGABRT:
                    break
            return False

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._owner != os.getpid():  # a fork has its parent's pipes
            self._owner = os.getpid()
            self._process = subprocess.Popen(
                [sys.executable, "-c", _SCRIPT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us
            )
        return self._process


_SCRIPT = """
import contextlib, io, sys
import pyarrow.parquet as pq
while length := sys.stdin.buffer.read(4):
    footer = sys.stdin.buffer.read(int.from_bytes(length, "little"))
    with contextlib.suppress(Exception):  # the caller meets it, too
        metadata = pq.read_metadata(io.BytesIO(b"PAR1" + footer + length + b"PAR1"))
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            for column in range(group.num_columns):
                group.column(column)
    sys.stdout.buffer.write(b".")
    sys.stdout.buffer.flush()
"""
_CHECKER = FooterChecker()


def read_footer(file: BinaryIO) -> bytes | None:
    """Returns the footer of a Parquet file as a file without rows, for `pyarrow.parquet.read_metadata`.

    Returns None if the file does not end in a footer, and leaves it to pyarrow to say why. Raises DataError if the
    footer would end this process, OSError if the file cannot be read.
    """
    size = file.seek(0, io.SEEK_END)
    found = _read_exactly(file, max(0, size - TAIL_BYTES), size)
    length = int.from_bytes(found[-_END_BYTES : -len(MAGIC)], "little") + _END_BYTES
    if not found.endswith(MAGIC) or length > size:
        return None
    if length > len(found):
        found = _read_exactly(file, size - length, size)
    if not _CHECKER.is_sound(found[-length:-_END_BYTES]):
        raise DataError(ErrorCode.CORRUPT_SHARD, "no Parquet file: the footer's columns are damaged")
    return MAGIC + found[-length:]


def _read_exactly(file: BinaryIO, start: int, stop: int) -> bytes:
    """Reads a range by as many reads as it takes; less if the file ends before."""
    file.seek(start)
    pieces = list[bytes]()
    while start < stop and (piece := file.read(stop - start)):
        pieces.append(piece)
        start += len(piece)
    return b"".join(pieces)
