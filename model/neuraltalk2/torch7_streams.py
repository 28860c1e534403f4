"""The two encodings of Torch7 files: binary, little-endian; and ASCII, with one write per line."""

from __future__ import annotations

import os
import struct
from abc import ABC, abstractmethod
from typing import Any, BinaryIO, NoReturn

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LONG = np.dtype("<i8")
_MAX_NUMBER_CHARS = 64  # of a number in ASCII, with its line break
_CHUNK_BYTES = 1 << 20


class DamagedError(Exception):
    """A damaged file: the reason, and the offset in bytes at which it was noticed."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset


class Stream(ABC):
    """Reads typed values from a file, in sequence. Never allocates memory for more than the file has left.

    Args:
        file: seekable, at its start.

    All methods raise DamagedError.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self.offset = 0
        """Bytes read so far."""

    @property
    def left(self) -> int:
        """Bytes not yet read."""
        return self._size - self.offset

    def fail(self, reason: str) -> NoReturn:
        """Raises DamagedError at the current offset."""
        raise DamagedError(self.offset, reason)

    @abstractmethod
    def integer(self) -> int:
        """Reads an int of 32 bits."""

    @abstractmethod
    def number(self) -> float:
        """Reads a double."""

    @abstractmethod
    def array(self, kind: np.dtype[Any], count: int) -> Array:
        """Reads `count` elements of a little-endian type; returns (count,)."""

    def longs(self, count: int) -> list[int]:
        """Reads `count` longs."""
        found: list[int] = self.array(LONG, count).tolist()
        return found

    def count(self, *, least_bytes: int) -> int:
        """Reads the number of items that follow; each takes `least_bytes` or more."""
        count = self.integer()
        self._require(count, least_bytes)
        return count

    def characters(self, count: int) -> bytes:
        """Reads `count` raw bytes."""
        self._require(count, 1)
        self.offset += count
        return self._file.read(count)

    def skip(self, count: int) -> None:
        """Skips `count` bytes."""
        self._require(count, 1)
        self.offset += count
        self._file.seek(count, os.SEEK_CUR)

    def _require(self, count: int, each_bytes: int) -> None:
        if count < 0:
            self.fail(f"there are {count} of something")
        if count * each_bytes > self.left:
            self.fail(f"{count * each_bytes} bytes should follow, and {self.left} do")


class BinaryStream(Stream):
    """The binary encoding: little-endian, without padding.

    Args:
        long_bytes: size of a long: 8, or 4 as on Windows and 32-bit processors.
    """

    def __init__(self, file: BinaryIO, *, long_bytes: int) -> None:
        super().__init__(file)
        self._long = np.dtype(f"<i{long_bytes}")
        self.has_longs = False
        """True once a long has been read."""

    def integer(self) -> int:  # noqa: D102
        value: int = struct.unpack("<i", self.characters(4))[0]
        return value

    def number(self) -> float:  # noqa: D102
        value: float = struct.unpack("<d", self.characters(8))[0]
        return value

    def array(self, kind: np.dtype[Any], count: int) -> Array:  # noqa: D102
        stored = self._long if kind == LONG else kind
        self.has_longs |= kind == LONG
        self._require(count, stored.itemsize)
        values = np.empty(count, stored)
        if self._file.readinto(values.view(np.uint8)) < values.nbytes:  # type: ignore[attr-defined]
            self.fail("the file became shorter while it was read")
        self.offset += values.nbytes
        return values.astype(kind, copy=False)


class AsciiStream(Stream):
    """The ASCII encoding: one write per line, numbers separated by spaces; characters and bytes are raw."""

    def integer(self) -> int:  # noqa: D102
        return int(self._scalar(np.dtype("<i4")))

    def number(self) -> float:  # noqa: D102
        return float(self._scalar(np.dtype("<f8")))

    def characters(self, count: int) -> bytes:  # noqa: D102
        found = super().characters(count)
        self._end_line(count)
        return found

    def skip(self, count: int) -> None:  # noqa: D102
        super().skip(count)
        self._end_line(count)

    def array(self, kind: np.dtype[Any], count: int) -> Array:  # noqa: D102
        if kind.itemsize == 1:
            return np.frombuffer(bytearray(self.characters(count)), kind)
        self._require(count, 2)
        values = np.empty(count, kind)
        filled, cut = 0, b""
        while filled < count:
            chunk = self._line(_CHUNK_BYTES)
            words = (cut + chunk).split()
            cut = words.pop() if words and chunk and not chunk[-1:].isspace() else b""
            if not chunk or filled + len(words) > count or len(cut) > _MAX_NUMBER_CHARS:
                self.fail(f"{count} numbers should stand here")
            values[filled : filled + len(words)] = self._parse(words, kind)
            filled += len(words)
        return values

    def _scalar(self, kind: np.dtype[Any]) -> Any:
        line = self._line(_MAX_NUMBER_CHARS)
        words = line.split()
        if len(words) != 1 or not line.endswith(b"\n"):
            self.fail(f"{line!r} should be a line with one number")
        return self._parse(words, kind)[0]

    def _parse(self, words: list[bytes], kind: np.dtype[Any]) -> Array:
        if max(map(len, words), default=0) > _MAX_NUMBER_CHARS:  # NumPy pads all words to the longest
            self.fail("this is no number")
        try:
            with np.errstate(over="ignore"):  # values out of range become infinite
                return np.array(words, "S").astype(kind) if words else np.empty(0, kind)
        except (ValueError, OverflowError) as error:
            raise DamagedError(self.offset, f"these are no numbers: {error}") from error

    def _end_line(self, count: int) -> None:
        if count and self._line(1) != b"\n":
            self.fail("a line should end here")

    def _line(self, most: int) -> bytes:
        line = self._file.readline(most)
        self.offset += len(line)
        return line
