"""Reads the footers of Parquet files, and checks them in a process of its own, which a damaged footer may end.

pyarrow (26.0) describes a column of a row group without catching the exceptions of its C++ code, and so aborts the
process that asks for one with, say, a histogram of the wrong length. It reads the other columns all the same.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import struct
import subprocess
import sys
import threading
from typing import BinaryIO

import pyarrow.parquet as pq

from pipeline.errors import DataError
from pipeline.schema import ErrorCode

MAGIC = b"PAR1"
_LENGTH_BYTES = 4
_END_BYTES = _LENGTH_BYTES + len(MAGIC)
TAIL_BYTES = 64 << 10
"""Number of bytes that are read first, in which most footers are whole: a store is then asked once."""
_HEAD = "<Iii"
"""Before each footer, its length, a column and a row group; -1 for none of them, or all."""
_SOUND = b"."
MAX_UNSOUND = 4
"""Number of row groups that may end a process each before the rest of the file is given up."""
TRIES = 2
"""Number of processes that a footer may end by another signal than SIGABRT: somebody else may have sent the first."""


class FooterChecker:
    """A process that is asked about one footer after the other, by any thread, and is replaced when one ends it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def is_sound(self, footer: bytes, column: int | None = None, group: int | None = None) -> bool:
        """Returns False if describing this footer's row groups ends a process. Raises RuntimeError if none can run.

        Args:
            footer: the footer, without its length.
            column: index of the column that is described, too.
            group: index of the only row group that is described; None: all.
        """
        numbers = (-1 if number is None else number for number in (column, group))
        question = struct.pack(_HEAD, len(footer), *numbers) + footer
        with self._lock:
            for _ in range(TRIES):
                process = self._running()
                assert process.stdin and process.stdout
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(question)
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


_SCRIPT = f"""
import contextlib, io, struct, sys
import pyarrow.parquet as pq
while head := sys.stdin.buffer.read({struct.calcsize(_HEAD)}):
    length, column, only = struct.unpack("{_HEAD}", head)
    footer = sys.stdin.buffer.read(length)
    with contextlib.suppress(Exception):  # the caller meets it, too
        file = {MAGIC!r} + footer + length.to_bytes({_LENGTH_BYTES}, "little") + {MAGIC!r}
        metadata = pq.read_metadata(io.BytesIO(file))
        for number in range(metadata.num_row_groups) if only < 0 else [only]:
            group = metadata.row_group(number)
            if column >= 0:
                group.column(column)
    sys.stdout.buffer.write({_SOUND!r})
    sys.stdout.buffer.flush()
"""
_CHECKER = FooterChecker()


class CheckedMetadata:
    """The metadata of a Parquet file. Raises DataError for what would end this process, and whatever pyarrow raises.

    Args:
        footer: the footer with its length and magic.
    """

    def __init__(self, footer: bytes) -> None:
        self._footer, self._unsound = footer[:-_END_BYTES], dict[int, frozenset[int]]()
        if not _CHECKER.is_sound(self._footer):
            raise DataError(ErrorCode.CORRUPT_SHARD, "the footer's row groups are damaged")
        self.metadata = pq.read_metadata(io.BytesIO(MAGIC + footer))
        self.groups = [self.metadata.row_group(group) for group in range(self.metadata.num_row_groups)]

    def column(self, group: int, column: int) -> pq.ColumnChunkMetaData:
        """Describes a column of a row group."""
        if group in self.unsound_groups(column):
            where = f"column {column} in row group {group}"
            raise DataError(ErrorCode.CORRUPT_SHARD, f"the footer's description of {where} is damaged")
        return self.groups[group].column(column)

    def unsound_groups(self, column: int) -> frozenset[int]:
        """Returns the row groups in which a column cannot be described."""
        if column not in self._unsound:
            self._unsound[column] = self._find_unsound(column)
        return self._unsound[column]

    def _find_unsound(self, column: int) -> frozenset[int]:
        """Returns the row groups of which a column cannot be described; all from `MAX_UNSOUND` of them on."""
        if _CHECKER.is_sound(self._footer, column):
            return frozenset()
        found = list[int]()
        for group in range(len(self.groups)):
            if len(found) == MAX_UNSOUND:
                return frozenset([*found, *range(group, len(self.groups))])
            if not _CHECKER.is_sound(self._footer, column, group):
                found.append(group)
        return frozenset(found)


def read_footer(file: BinaryIO) -> bytes:
    """Reads the footer of a Parquet file, with its length and magic. Raises DataError or OSError."""
    size = file.seek(0, io.SEEK_END)
    found = _read_exactly(file, max(0, size - TAIL_BYTES), size)
    length = int.from_bytes(found[-_END_BYTES : -len(MAGIC)], "little") + _END_BYTES
    if not found.endswith(MAGIC) or length > size:
        raise DataError(ErrorCode.CORRUPT_SHARD, "no Parquet file: it does not end in a footer, or an encrypted one")
    if length > len(found):
        found = _read_exactly(file, size - length, size)
    return found[-length:]


def _read_exactly(file: BinaryIO, start: int, stop: int) -> bytes:
    """Reads a range by as many reads as it takes; less if the file ends before."""
    file.seek(start)
    pieces = list[bytes]()
    while start < stop and (piece := file.read(stop - start)):
        pieces.append(piece)
        start += len(piece)
    return b"".join(pieces)
