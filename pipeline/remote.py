"""Reads a file of a remote filesystem: in large ranges, one ahead of the reader, and over failures of the network."""

from __future__ import annotations

import errno
import io
import random
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

RANGE_BYTES = 8 << 20
"""Of a request: large enough that its round trip does not count."""
ATTEMPTS = 6
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 8.0
"""Between attempts: doubled each time, and drawn from the upper half so that many readers do not come back at once."""
Result = TypeVar("Result")
_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError)
_REFUSALS = ("AWS Error ACCESS_DENIED", "(HTTP status 403)")
"""In the text of a store's answer, which pyarrow gives no class of its own."""


class RemoteFile(io.RawIOBase):
    """A file for reading and seeking.

    A failed request is made again, on a new connection, for the bytes that were not reached; after `ATTEMPTS` its
    OSError is raised. What does not exist or may not be read is raised at once.

    Args:
        system, path: as pyarrow takes them.
        range_bytes: of a request at most.
    """

    def __init__(self, system: pafs.FileSystem, path: str, *, range_bytes: int = RANGE_BYTES) -> None:
        super().__init__()
        self._system, self._path, self._range_bytes = system, path, range_bytes
        self._file: pa.NativeFile | None = None
        self._position = 0
        self._start, self._held = 0, memoryview(b"")  # what was read last, and from where
        self._size: int = self._over_failures(lambda file: int(file.size()))
        self._ahead: tuple[int, Future[memoryview]] | None = None
        self._thread = ThreadPoolExecutor(1) if self._size > range_bytes else None

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
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fills the buffer as far as one range reaches; 0 at the end. Raises OSError."""
        if self._position >= self._size:
            return 0
        if not 0 <= self._position - self._start < len(self._held):
            self._start, self._held = self._position, self._range(self._position)
        view = memoryview(buffer).cast("B")
        begin = self._position - self._start
        data = self._held[begin : begin + len(view)]
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        """Ends the request under way and the connection."""
        if not self.closed:
            if self._thread:
                self._thread.shutdown(wait=True, cancel_futures=True)
            self._disconnect()
        super().close()

    def _range(self, start: int) -> memoryview:
        """The range that begins at `start`; asks for the one behind it where they are read in a row."""
        in_a_row = start == self._start + len(self._held)
        if self._ahead and self._ahead[0] == start:
            data = self._ahead[1].result()
        else:
            if self._ahead:
                self._ahead[1].exception()  # the connection serves one at a time
            data = self._fetch(start)
        self._ahead, following = None, start + len(data)
        if in_a_row and self._thread and following < self._size:
            self._ahead = (following, self._thread.submit(self._fetch, following))
        return data

    def _fetch(self, start: int) -> memoryview:
        wanted = min(self._range_bytes, self._size - start)
        data = self._over_failures(lambda file: file.read_at(wanted, start))
        if not data:
            raise OSError(f"{self._path} ends at byte {start}; it had {self._size} bytes when it was opened")
        return memoryview(data)

    def _over_failures(self, request: Callable[[pa.NativeFile], Result]) -> Result:
        pause = FIRST_PAUSE_S
        for _ in range(ATTEMPTS - 1):
            try:
                return request(self._connected())
            except _PERMANENT:
                raise
            except OSError as error:
                self._disconnect()
                if any(refusal in str(error) for refusal in _REFUSALS):
                    raise
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE_S)
        return request(self._connected())

    def _connected(self) -> pa.NativeFile:
        if self._file is None:
            try:
                self._file = self._system.open_input_file(self._path)
            except pa.ArrowInvalid as error:  # a key that a store has but pyarrow cannot name: "a//b"
                raise FileNotFoundError(errno.ENOENT, str(error)) from error
        return self._file

    def _disconnect(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None
