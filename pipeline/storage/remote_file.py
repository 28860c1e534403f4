"""Reads remote files in large ranges, prefetching the next one, with retries of failed requests."""

from __future__ import annotations

import errno
import io
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa
import pyarrow.fs as pafs

from pipeline.storage.retries import with_retries

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

RANGE_BYTES = 8 << 20
"""Size of a request in bytes: large enough to make the round trip negligible."""
ZEROS = bytes(32)
"""Zeros at the end of a range may be an unfilled buffer, and are requested again."""


@dataclass(frozen=True, slots=True)
class FileVersion:
    """Size and time of change of a file in a listing, by which a replaced file is noticed."""

    size: int
    mtime_ns: int
    """Time of change in nanoseconds since 1970; 0 if unknown."""


class RangeSource(Protocol):
    """A remote file that is read by ranges. Methods raise OSError; ChangedError if the file was replaced."""

    def size(self) -> int:
        """Returns the size of the file in bytes. Costs a request if nothing was read before."""

    def read_into(self, buffer: bytearray, start: int, stop: int) -> None:
        """Appends the bytes from `start` to `stop`, or to the end of the file, to the buffer.

        Bytes that arrive before a failure are appended, too.
        """

    def disconnect(self) -> None:
        """Closes the connection, after a failure and at the end; the next request opens another."""


class RemoteFile(io.RawIOBase):
    """A remote file for reading and seeking. A missing file is reported by the first read.

    A failed request is repeated for the missing bytes; after `retries.ATTEMPTS` attempts its OSError is raised. Missing
    files and permissions are reported at once.

    Args:
        source: source of the bytes; used by one thread at a time.
        range_bytes: maximum size of a request in bytes.
    """

    def __init__(self, source: RangeSource, *, range_bytes: int = RANGE_BYTES) -> None:
        super().__init__()
        self._source, self._range_bytes = source, range_bytes
        self._position = 0
        self._start, self._held = 0, memoryview(b"")  # offset and bytes of the last range
        self._ahead: tuple[int, Future[memoryview]] | None = None
        self._thread: ThreadPoolExecutor | None = None

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def tell(self) -> int:
        """Returns the byte offset of the next read."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Seeks to an offset from the start, the current position, or the end."""
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
        """Reads the bytes up to the end. Raises OSError."""
        return b"".join(iter(lambda: self._next(self._range_bytes), b""))

    def close(self) -> None:
        """Closes the connection, after a request in progress."""
        if not self.closed:
            if self._thread:
                self._thread.shutdown(wait=True, cancel_futures=True)
            self._source.disconnect()
        super().close()

    def _next(self, count: int) -> memoryview:
        """Reads up to `count` bytes, as far as one range reaches."""
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
        """Returns the range that begins at `start`; prefetches the next one if reading is sequential."""
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
            self._ahead[1].exception()  # the source serves one thread at a time

    def _fetch(self, start: int) -> memoryview:
        stop = start + self._range_bytes
        data = self._bytes(start, stop)
        while data.endswith(ZEROS):  # a store or proxy may fill missing bytes with zeros
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
    """A `RangeSource` of a file on any pyarrow filesystem.

    Args:
        system: the filesystem.
        path: path of the file in it.
    """

    def __init__(self, system: pafs.FileSystem, path: str) -> None:
        self._system, self._path = system, path
        self._file: pa.NativeFile | None = None
        self._bytes = -1

    def size(self) -> int:
        """Returns the size of the file in bytes at the first call."""
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
            except pa.ArrowInvalid as error:  # a valid key that pyarrow rejects: "a//b"
                raise FileNotFoundError(errno.ENOENT, str(error)) from error
        return self._file
