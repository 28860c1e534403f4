"""Walks a tar by its headers, front to back, from any byte at which one of its members begins, and over damage.

The elements that it finds lie side by side, from where it begins to the end of the file: members, gaps (damage, which
ends where the next header is found) and padding. What it finds from a byte on does not depend on where it began.
Headers are parsed by the standard library; the walk is ours because `tarfile` takes a tar cut between two members for
a complete one, and ends at the first header that makes no sense.

Reads V7, USTAR, GNU and PAX headers, with long names, links and sparse files. Does not read compressed tars, which have
no offsets to resume from.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, Literal, NamedTuple

from pipeline.errors import DataError
from pipeline.names import printable
from pipeline.schema import ErrorCode
from pipeline.tar_headers import (
    BLOCK,
    EXTENDED,
    MAX_EXTENDED_BYTES,
    Extended,
    Header,
    Parts,
    Sparse,
    add_extended,
    gnu_sparse,
    is_header,
    number,
    parse,
)

MAX_EXTENDED_HEADERS = 16
"""Before one member: tars have three at most, and each that is damaged is searched from anew."""
SEARCHED_BYTES = 1 << 20
"""Read at a time where a header is looked for."""
RECORD = tarfile.RECORDSIZE
_WITHOUT_DATA = {
    tarfile.LNKTYPE: "hard link",
    tarfile.SYMTYPE: "symbolic link",
    tarfile.CHRTYPE: "other",
    tarfile.BLKTYPE: "other",
    tarfile.DIRTYPE: "other",
    tarfile.FIFOTYPE: "other",
}
_MAGIC, _MAGIC_AT = b"ustar", 257
_CHECKSUM, _CHECKSUM_AT = re.compile(rb"[ 0]*[0-7]{3,6}[ \0]"), 148
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")

Kind = Literal["file", "hard link", "symbolic link", "other"]


class Member(NamedTuple):
    """What one header, with the extended ones before it, stands for."""

    name: str
    start: int
    """Byte offset of its first header."""
    stop: int
    """Byte offset after its last block."""
    kind: Kind
    """Others are folders and devices."""
    data: int
    """Byte offset of its data."""
    size: int
    """Bytes of its data, as it is stored."""
    target: str
    """Of a link."""
    sparse: Sparse | None

    @property
    def unpacked(self) -> int:
        """Bytes of its content, or those of what is stored if they are more."""
        return max(self.sparse.size, self.size) if self.sparse else self.size


class Gap(NamedTuple):
    """Bytes that are no members: damage, and what cannot be read because of it."""

    start: int
    stop: int
    code: str
    message: str


class Padding(NamedTuple):
    """Zeros behind the last member of a tar."""

    start: int
    stop: int


Element = Member | Gap | Padding


class _DamageError(DataError):
    """Of a member whose headers begin well; `searched` is the byte from which the next header is looked for."""

    def __init__(self, code: str, message: str, searched: int) -> None:
        super().__init__(code, message)
        self.searched = searched


def walk(file: BinaryIO, *, size: int, offset: int = 0) -> Iterator[Element]:
    """Yields the elements from `offset` on; each begins where the one before it ends. Reads headers only.

    A tar that has no padding at its end was cut: the last element is a gap then, of 0 bytes if it was cut between two
    members. The caller may move the file between elements. Raises OSError.

    Args:
        file: the tar.
        size: of the whole tar, in bytes.
        offset: 0, or where some element ends.
    """
    element: Element | None = None
    while element is None or element.stop < size or isinstance(element, Member):
        offset = element.stop if element else min(offset, size)
        file.seek(offset)
        header = file.read(min(BLOCK, size - offset))
        if len(header) < BLOCK:
            message = f"the tar ends at byte {offset + len(header)}, inside or before a header"
            element = Gap(offset, size, ErrorCode.TRUNCATED_SHARD, message)
        elif header.count(0) == BLOCK:
            element = _at_zeros(file, offset, size)
        else:
            try:
                element = _member(file, header, offset, size)
            except _DamageError as damage:
                element = _gap(file, offset, size, damage, searched=damage.searched)
            except DataError as damage:
                element = _gap(file, offset, size, damage, searched=offset + 1)
        yield element


def content(file: BinaryIO, member: Member) -> bytes:
    """The bytes of a file of the tar; those of a sparse one unpacked. Raises DataError or OSError."""
    file.seek(member.data)
    data = file.read(member.size)
    if len(data) < member.size:
        message = f"the tar ends at byte {member.data + len(data)}, inside {printable(member.name)!r}"
        raise DataError(ErrorCode.TRUNCATED_SHARD, message)
    return _unpacked(data, member.sparse, member.data) if member.sparse else data


def find_header(file: BinaryIO, *, start: int, stop: int) -> int | None:
    """Byte offset of the first header in [start, stop); None where there is none.

    A header with `ustar` in it, as all have that were written since 1988, is found at any byte; an older one in steps
    of 512 bytes from `start`. A block counts as a header if its sum is right, so data of images are taken for none;
    those of a tar inside the tar are.
    """
    return _search(file, start, stop, grid=start)[0]


def _search(file: BinaryIO, start: int, stop: int, *, grid: int) -> tuple[int | None, int]:
    """The first header, and the byte behind the last one before it that is not zero.

    Args:
        grid: some byte that blocks of 512 are counted from.
    """
    at, filled, kept = start, start, b""
    while at < stop:
        file.seek(at + len(kept))
        read = file.read(SEARCHED_BYTES)
        chunk = kept + read
        candidates = [] if not chunk.strip(b"\0") else sorted({*_with_magic(chunk), *_on_grid(chunk, at - grid)})
        for i in candidates:
            if at + i < stop and is_header(chunk[i : i + BLOCK]):
                return at + i, max(filled, at + len(chunk[:i].rstrip(b"\0")))
        filled = max(filled, at + len(chunk.rstrip(b"\0"))) if chunk.strip(b"\0") else filled
        if not read:
            break
        kept = chunk[-(BLOCK - 1) :]
        at += len(chunk) - len(kept)
    return None, min(filled, stop)


def _with_magic(chunk: bytes) -> Iterator[int]:
    at = chunk.find(_MAGIC)
    while at >= 0:
        if 0 <= at - _MAGIC_AT <= len(chunk) - BLOCK:
            yield at - _MAGIC_AT
        at = chunk.find(_MAGIC, at + 1)


def _on_grid(chunk: bytes, shift: int) -> Iterator[int]:
    """Blocks whose sum is written as one, for headers of the time before `ustar`."""
    for at in range(-shift % BLOCK, len(chunk) - BLOCK + 1, BLOCK):
        if _CHECKSUM.match(chunk, at + _CHECKSUM_AT) and chunk[at]:
            yield at


def _member(file: BinaryIO, header: bytes, start: int, size: int) -> Member:
    """The member whose first header is at `start`. Raises DataError."""
    offset, extended, count = start, None, 0
    info = parse(header, offset)
    while info.type in EXTENDED:
        data_at, count = offset + BLOCK, count + 1
        if data_at + info.size > size:
            message = f"an extended header at byte {offset} goes past the end ({size} bytes)"
            raise _DamageError(ErrorCode.TRUNCATED_SHARD, message, data_at)
        if info.size > MAX_EXTENDED_BYTES or count > MAX_EXTENDED_HEADERS:
            raise _DamageError(
                ErrorCode.CORRUPT_SHARD, f"an extended header of {info.size} bytes at byte {offset}", data_at
            )
        extended = extended or Extended()
        try:
            add_extended(info, _exactly(file, info.size, data_at, size), extended)
            offset = data_at + _padded(info.size)
            file.seek(offset)
            header = _exactly(file, BLOCK, offset, size)
            if header.count(0) == BLOCK:
                raise DataError(ErrorCode.CORRUPT_SHARD, f"an extended header without its member at byte {offset}")
            info = parse(header, offset)
        except DataError as error:
            raise _DamageError(error.code, error.message, data_at) from error
    try:
        return _described(file, header, info, extended, start=start, offset=offset, size=size)
    except _DamageError:
        raise
    except DataError as error:
        raise _DamageError(error.code, error.message, offset + BLOCK) from error


def _described(
    file: BinaryIO,
    header: bytes,
    info: Header,
    extended: Extended | None,
    *,
    start: int,
    offset: int,
    size: int,
) -> Member:
    """The member whose own header is at `offset`. Raises DataError."""
    name, target, data, stored, sparse = info.name, info.target, offset + BLOCK, info.size, None
    if extended:
        found = extended.name
        name = name if found is None else found
        target = extended.records.get("linkpath", target)
        sparse = extended.sparse(offset)
        stored = extended.size(otherwise=stored)
    if info.type == tarfile.GNUTYPE_SPARSE:
        sparse, passed = gnu_sparse(header, file, data)
        data += passed
    kind: Kind = "file"
    if info.type in _WITHOUT_DATA:
        kind = _WITHOUT_DATA[info.type]  # type: ignore[assignment]
        if stored and (_can_begin(file, data, size) or not _can_begin(file, data + _padded(stored), size)):
            stored = 0  # it says how large something else is
        elif stored and kind == "hard link":
            kind = "file"  # some write the data once more
    if data + stored > size:
        message = f"{printable(name)!r} at byte {start} goes past the end ({size} bytes)"
        is_tar = name.lower().endswith(".tar") and _can_begin(file, data, size)  # whose members are not of this one
        raise _DamageError(ErrorCode.TRUNCATED_SHARD, message, size if is_tar else offset + BLOCK)
    return Member(name, start, min(size, data + _padded(stored)), kind, data, stored, target, sparse)


def _can_begin(file: BinaryIO, offset: int, size: int) -> bool:
    """Whether a header or the end of the tar lies at a byte."""
    if offset >= size:
        return offset == size
    file.seek(offset)
    block = file.read(BLOCK)
    return block.count(0) == len(block) or is_header(block)


def _exactly(file: BinaryIO, count: int, offset: int, size: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        message = f"the tar ends at byte {min(size, offset + len(data))}, inside or before an extended header"
        raise DataError(ErrorCode.TRUNCATED_SHARD, message)
    return data


def _padded(count: int) -> int:
    return -(-count // BLOCK) * BLOCK


def _at_zeros(file: BinaryIO, start: int, size: int) -> Element:
    """What begins with a block of zeros: the end of the tar, or of one behind which another one begins, or damage."""
    first = _skip_zeros(file, start, size)
    if first == size:
        lost = _zeros_before(file, start)
        if lost == start:
            return Padding(start, size)
        message = f"nothing but zeros from byte {lost}, inside a member, to the end: {size - lost} bytes may be lost"
        return Gap(start, size, ErrorCode.CORRUPT_SHARD, message)
    behind = start + (first - start) // BLOCK * BLOCK
    file.seek(behind)
    is_followed = is_header(file.read(BLOCK))
    # Tars end in two blocks of zeros, most then in as many as make up a whole record; another count is damage.
    if is_followed and behind - start >= 2 * BLOCK and (behind - start == 2 * BLOCK or behind % RECORD == 0):
        return Padding(start, behind)
    zeros = DataError(ErrorCode.CORRUPT_SHARD, f"zeros instead of a header at byte {start}")
    return _gap(file, start, size, zeros, searched=behind)


def _skip_zeros(file: BinaryIO, start: int, size: int) -> int:
    """Byte offset of the first byte that is not zero; `size` if there is none."""
    file.seek(start)
    at = start
    while chunk := file.read(SEARCHED_BYTES):
        rest = chunk.lstrip(b"\0")
        if rest:
            return min(size, at + len(chunk) - len(rest))
        at += len(chunk)
    return size


def _zeros_before(file: BinaryIO, offset: int) -> int:
    """Where the zeros began that reach the end of the tar: `offset`, or inside the data of the last member.

    A file can well end in zeros; that they begin at a block's first byte is rare, unless a disk or a copy lost blocks.
    """
    first, step = offset, BLOCK
    while first > 0:
        file.seek(max(0, first - step))
        rest = file.read(min(step, first)).rstrip(b"\0")
        first, step = max(0, first - step), SEARCHED_BYTES
        if rest:
            first += len(rest)
            break
    if first == offset or first < BLOCK or (offset - first) % BLOCK:
        return offset
    file.seek(first - BLOCK)
    return offset if is_header(file.read(BLOCK)) else first


def _gap(file: BinaryIO, start: int, size: int, damage: DataError, *, searched: int) -> Gap:
    """Damage up to the next header, or to the padding at the end of the tar, or to the end."""
    if start == 0:
        file.seek(0)
        if file.read(BLOCK).startswith(_COMPRESSED):
            message = f"compressed tars are not read; unpack it first ({damage.message})"
            return Gap(0, size, ErrorCode.CORRUPT_SHARD, message)
    found, filled = _search(file, searched, size, grid=start)
    if found is None and damage.code == ErrorCode.TRUNCATED_SHARD:
        return Gap(start, size, damage.code, f"{damage.message}; {size - start} bytes lost")
    if found is None:
        stop = start + _padded(max(filled, start + 1) - start)
        stop = stop if size - stop >= BLOCK else size
        message = f"{damage.message}; {stop - start} bytes lost, behind which no header is found"
        return Gap(start, stop, ErrorCode.CORRUPT_SHARD, message)
    message = f"{damage.message}; {found - start} bytes lost, read on at byte {found}"
    return Gap(start, found, ErrorCode.CORRUPT_SHARD, message)


def _unpacked(data: bytes, sparse: Sparse, offset: int) -> bytes:
    """The content of a sparse file. Raises DataError where its map makes no sense."""
    parts = sparse.parts
    if parts is None:
        parts, data = _map_before(data, offset)
    whole, read = bytearray(sparse.size), 0
    for first, count in parts:
        if first + count > sparse.size or read + count > len(data):
            raise DataError(ErrorCode.CORRUPT_SHARD, f"the map of a sparse file does not fit its data at byte {offset}")
        whole[first : first + count] = data[read : read + count]
        read += count
    return bytes(whole)


def _map_before(data: bytes, offset: int) -> tuple[Parts, bytes]:
    """The parts of a sparse file that are listed before its data, a number a line, and the data."""
    numbers, wanted, at = list[int](), 1, 0
    while len(numbers) < wanted:
        end = data.find(b"\n", at, min(at + BLOCK, MAX_EXTENDED_BYTES))
        if end < 0:
            raise DataError(ErrorCode.CORRUPT_SHARD, f"the map of a sparse file at byte {offset} has no end")
        numbers.append(number(data[at:end].decode("ascii", "replace"), offset))
        wanted, at = 1 + 2 * numbers[0], end + 1
    return tuple(zip(numbers[1::2], numbers[2::2], strict=True)), data[_padded(at) :]
