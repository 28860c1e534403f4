"""Reads a file of a remote filesystem: in large ranges, one ahead of the reader, and over failures of the network."""

from __future__ import annotations

import errno
import io
import random
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

from pipeline.errors import ChangedError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

RANGE_BYTES = 8 << 20
"""Of a request: large enough that its round trip does not count."""
ATTEMPTS = 6
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 8.0
"""Between attempts: doubled each time, and drawn from the upper half so that many readers do not come back at once."""
ZEROS = bytes(32)
"""At the end of a range they may be a buffer that was not filled."""
Result = TypeVar("Result")
_REFUSALS = ("ACCESS_DENIED", "(HTTP status 403)")
"""In the text of a store's answer, which pyarrow gives no class of its own."""


@dataclass(frozen=True, slots=True)
class FileVersion:
    """What a listing tells of a file, so that another one in its place is noticed."""

    size: int
    mtime_ns: int
    """0 where it is not known."""


class PermanentError(OSError):
    """An answer that does not change when it is asked for again."""


_FINAL = (PermanentError, ChangedError, FileNotFoundError, PermissionError, IsADirectoryError)


class RangeSource(Protocol):
    """A file somewhere else, by ranges. Its methods raise OSError; ChangedError if it is not the file that it was."""

    def size(self) -> int:
        """Bytes of the file. Costs a request if nothing was read before."""

    def read_into(self, buffer: bytearray, start: int, stop: int) -> None:
        """Appends the bytes from `start` to `stop`, or to the end of the file.

        Those that arrived before a failure are in the buffer, too.
        """

    def disconnect(self) -> None:
        """Called after a failure and at the end: the next request needs another connection."""


class RemoteFile(io.RawIOBase):
    """A file for reading and seeking. What does not exist is found out by the first read.

    A failed request is made again for the bytes that were not reached; after `ATTEMPTS` its OSError is raised. That
    something does not exist or may not be read is raised at once.

    Args:
        source: of its bytes; asked by one thread at a time.
        range_bytes: of a request at most.
    """

    def __init__(self, source: RangeSource, *, range_bytes: int = RANGE_BYTES) -> None:
        super().__init__()
        self._source, self._range_bytes = source, range_bytes
        self._position = 0
        self._start, self._held = 0, memoryview(b"")  # what was read last, and from where
        self._ahead: tuple[int, Future[memoryview]] | None = None
        self._thread: ThreadPoolExecutor | None = None

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Byte offset of what is read next."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to an offset from the start, from here, or from the end."""
        base = {io.SEEK_SET: lambda: 0, io.SEEK_CUR: self.tell, io.SEEK_END: self._size}[whence]()
        self._position = base + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fills the buffer as far as one range reaches; 0 at the end. Raises OSError."""
        view = memoryview(buffer).cast("B")
        data = self._next(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        """The bytes up to the end. Raises OSError."""
        return b"".join(iter(lambda: self._next(self._range_bytes), b""))

    def close(self) -> None:
        """Ends the request under way and the connection."""
        if not self.closed:
            if self._thread:
                self._thread.shutdown(wait=True, cancel_futures=True)
            self._source.disconnect()
        super().close()

    def _next(self, count: int) -> memoryview:
        """Up to `count` bytes, as far as one range reaches; they count as read."""
        if not 0 <= self._position - self._start < len(self._held):
            self._start, self._held = self._position, self._range(self._position)
        begin = self._position - self._start
        data = self._held[begin : begin + count]
        self._position += len(data)
        return data

    def _size(self) -> int:
        self._wait()
        return with_retries(self._source.size, before_next=self._source.disconnect)

    def _range(self, start: int) -> memoryview:
        """The range that begins at `start`; asks for the one behind it where they are read in a row."""
        in_a_row = start == self._start + len(self._held)
        if self._ahead and self._ahead[0] == start:
            data = self._ahead[1].result()
        else:
            self._wait()
            data = self._fetch(start)
        self._ahead, following = None, start + len(data)
        if in_a_row and data and following < self._source.size():
            self._thread = self._thread or ThreadPoolExecutor(1)
            self._ahead = (following, self._thread.submit(self._fetch, following))
        return data

    def _wait(self) -> None:
        if self._ahead:
            self._ahead[1].exception()  # the source serves one at a time

    def _fetch(self, start: int) -> memoryview:
        stop = start + self._range_bytes
        data = self._bytes(start, stop)
        while data.endswith(ZEROS):  # what a store does not have, it or a proxy may fill with zeros
            filled = len(data.rstrip(b"\0"))
            tail = self._bytes(start + filled, start + len(data))
            if tail == data[filled:]:
                break
            data[filled:] = tail
        return memoryview(data)

    def _bytes(self, start: int, stop: int) -> bytearray:
        buffer = bytearray()
        with_retries(
            lambda: self._source.read_into(buffer, start + len(buffer), stop), before_next=self._source.disconnect
        )
        return buffer


class PyArrowSource:
    """A file of any filesystem of pyarrow's.

    Args:
        system, path: as pyarrow takes them.
    """

    def __init__(self, system: pafs.FileSystem, path: str) -> None:
        self._system, self._path = system, path
        self._file: pa.NativeFile | None = None
        self._bytes = -1

    def size(self) -> int:
        """Bytes of the file, when it was first asked."""
        if self._bytes < 0:
            self._bytes = int(self._connected().size())
        return self._bytes

    def read_into(self, buffer: bytearray, start: int, stop: int) -> None:
        """Appends a range."""
        wanted = min(stop, self.size()) - start
        if wanted > 0:
            data = self._connected().read_at(wanted, start)
            buffer += data
            if len(data) < wanted:
                ends = f"{self._path} ends at byte {start + len(data)}"
                raise OSError(errno.EIO, f"{ends}; it had {self._bytes} bytes when it was opened")

    def disconnect(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def _connected(self) -> pa.NativeFile:
        if self._file is None:
            try:
                self._file = self._system.open_input_file(self._path)
            except pa.ArrowInvalid as error:  # a key that a store has but pyarrow cannot name: "a//b"
                raise FileNotFoundError(errno.ENOENT, str(error)) from error
        return self._file


def with_retries(
    request: Callable[[], Result], *, attempts: int = ATTEMPTS, before_next: Callable[[], object] = lambda: None
) -> Result:
    """The result of a request that is made again, after a pause, where it raises an OSError that may pass.

    Args:
        before_next: called after each failure.
    """
    pause = FIRST_PAUSE_S
    for _ in range(attempts - 1):
        try:
            return request()
        except _FINAL:
            raise
        except OSError as error:
            before_next()
            if any(refusal in str(error) for refusal in _REFUSALS):
                raise
        time.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, LONGEST_PAUSE_S)
    return request()
