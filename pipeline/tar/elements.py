"""The elements of a tar: members, damage and padding, which follow each other without gaps."""

from __future__ import annotations

from typing import BinaryIO, Literal, NamedTuple

from pipeline.errors import DataError
from pipeline.filenames import printable
from pipeline.schema import ErrorCode
from pipeline.tar.headers import BLOCK, MAX_EXTENDED_BYTES, Parts, Sparse, parse_number

Kind = Literal["file", "rest of a file", "hard link", "symbolic link", "other"]


class Member(NamedTuple):
    """A member of a tar: its header, the extended headers before it, and its data."""

    name: str
    start: int
    """Byte offset of its first header."""
    stop: int
    """Byte offset after its last block."""
    kind: Kind
    """"other" is a folder or device; "rest of a file" begins in another volume of the tar."""
    data: int
    """Byte offset of its data."""
    size: int
    """Number of stored bytes of its data."""
    target: str
    """Target of a link; empty for other members."""
    sparse: Sparse | None

    @property
    def is_file(self) -> bool:
        """True if it holds the data of a file, or the rest of them."""
        return self.kind in ("file", "rest of a file")

    @property
    def unpacked_bytes(self) -> int:
        """Size of its content in bytes, or of its stored data if that is larger."""
        return max(self.sparse.size, self.size) if self.sparse else self.size


class Gap(NamedTuple):
    """A damaged range of bytes, with the members that cannot be read because of it."""

    start: int
    stop: int
    code: str
    message: str


class Padding(NamedTuple):
    """The zeros behind the last member of a tar."""

    start: int
    stop: int


Element = Member | Gap | Padding


def read_member(file: BinaryIO, member: Member) -> bytes:
    """Reads the content of a file in the tar; unpacks a sparse file. Raises DataError or OSError."""
    if member.kind == "rest of a file":
        message = f"{printable(member.name)!r} begins in another volume of the tar; unpack all volumes with `tar -xM`"
        raise DataError(ErrorCode.TRUNCATED_SHARD, message)
    file.seek(member.data)
    data = file.read(member.size)
    if len(data) < member.size:
        message = f"the tar ends at byte {member.data + len(data)}, inside {printable(member.name)!r}"
        raise DataError(ErrorCode.TRUNCATED_SHARD, message)
    return _unpacked(data, member.sparse, member.data) if member.sparse else data


def padded_size(count: int) -> int:
    """Returns the number of bytes that `count` bytes of data occupy in a tar."""
    return -(-count // BLOCK) * BLOCK


def _unpacked(data: bytes, sparse: Sparse, offset: int) -> bytes:
    """Unpacks a sparse file. Raises DataError if its map does not fit its data."""
    parts = sparse.parts
    if parts is None:
        parts, data = _map_in_data(data, offset)
    whole, read = bytearray(sparse.size), 0
    for first, count in parts:
        if first + count > sparse.size or read + count > len(data):
            raise DataError(ErrorCode.CORRUPT_SHARD, f"the map of a sparse file does not fit its data at byte {offset}")
        whole[first : first + count] = data[read : read + count]
        read += count
    return bytes(whole)


def _map_in_data(data: bytes, offset: int) -> tuple[Parts, bytes]:
    """Splits the map of a sparse file, one number per line, from the data behind it."""
    numbers, wanted, at = list[int](), 1, 0
    while len(numbers) < wanted:
        end = data.find(b"\n", at, min(at + BLOCK, MAX_EXTENDED_BYTES))
        if end < 0:
            raise DataError(ErrorCode.CORRUPT_SHARD, f"the map of a sparse file at byte {offset} has no end")
        numbers.append(parse_number(data[at:end].decode("ascii", "replace"), offset))
        wanted, at = 1 + 2 * numbers[0], end + 1
    return tuple(zip(numbers[1::2], numbers[2::2], strict=True)), data[padded_size(at) :]
