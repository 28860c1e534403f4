"""Walks the headers of a tar front to back, from the beginning of any member, and continues behind damage.

The elements it yields follow each other without gaps up to the end of the file: members, damage (up to the next
header) and padding. The elements from a byte on do not depend on where the walk began. The standard library's
`tarfile` is not used for the walk because it takes a tar that was cut between two members for complete, and stops at
the first invalid header.

Reads V7, USTAR, GNU and PAX headers, with long names, links and sparse files. Does not read compressed tars, which have
no offsets to resume from.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from pipeline.errors import DataError
from pipeline.file_types import recognize
from pipeline.filenames import printable
from pipeline.schema import ErrorCode
from pipeline.tar.damage import classify_zeros, skip_damage
from pipeline.tar.elements import Element, Gap, Kind, Member, padded_size
from pipeline.tar.headers import (
    BLOCK,
    EXTENDED,
    MAX_EXTENDED_BYTES,
    ExtendedHeader,
    Header,
    add_extended,
    gnu_sparse,
    is_header,
    parse_header,
)

MAX_EXTENDED_HEADERS = 16
"""Maximum number before one member: tars have at most three, and a search restarts at each damaged one."""
_WITHOUT_DATA: dict[bytes, Kind] = {
    tarfile.LNKTYPE: "hard link",
    tarfile.SYMTYPE: "symbolic link",
    tarfile.CHRTYPE: "other",
    tarfile.BLKTYPE: "other",
    tarfile.DIRTYPE: "other",
    tarfile.FIFOTYPE: "other",
    b"V": "other",  # the name of a volume
}
_WITH_DATA: dict[bytes, Kind] = {
    b"D": "other",  # a folder of an incremental backup: its data are the names in it
    b"M": "rest of a file",
}


class _DamageError(DataError):
    """Damage of a member whose headers begin validly; the next header is searched from byte `searched` on."""

    def __init__(self, code: str, message: str, searched: int) -> None:
        super().__init__(code, message)
        self.searched = searched


def walk(file: BinaryIO, *, size: int, offset: int = 0) -> Iterator[Element]:
    """Yields the elements from `offset` on, each of which begins at the end of the previous one. Reads only headers.

    A tar without padding at its end was cut: its last element is then a `Gap`, of 0 bytes if the cut is between two
    members. The caller may seek in the file between elements. Raises OSError.

    Args:
        file: the tar.
        size: size of the whole tar in bytes.
        offset: 0, or the end of an element.
    """
    element: Element | None = None
    while element is None or element.stop < size or isinstance(element, Member):
        offset = element.stop if element else min(offset, size)
        file.seek(offset)
        header = file.read(min(BLOCK, size - offset))
        if len(header) < BLOCK:
            message = f"the tar ends at byte {offset + len(header)}, inside or before a header"
            what = recognize(header) if offset == 0 else ""
            element = Gap(offset, size, ErrorCode.TRUNCATED_SHARD, f"not a tar but {what}" if what else message)
        elif header.count(0) == BLOCK:
            element = classify_zeros(file, offset, size)
        else:
            try:
                element = _member(file, header, offset, size)
            except _DamageError as damage:
                element = skip_damage(file, offset, size, damage, searched=damage.searched)
            except DataError as damage:
                element = skip_damage(file, offset, size, damage, searched=offset + 1)
        yield element


def _member(file: BinaryIO, header: bytes, start: int, size: int) -> Member:
    """Parses the member whose first header is at `start`. Raises DataError."""
    offset, extended, count = start, None, 0
    info = parse_header(header, offset)
    while info.type in EXTENDED:
        data_at, count = offset + BLOCK, count + 1
        if data_at + info.size > size:
            message = f"an extended header at byte {offset} goes past the end ({size} bytes)"
            raise _DamageError(ErrorCode.TRUNCATED_SHARD, message, data_at)
        if info.size > MAX_EXTENDED_BYTES or count > MAX_EXTENDED_HEADERS:
            raise _DamageError(
                ErrorCode.CORRUPT_SHARD, f"an extended header of {info.size} bytes at byte {offset}", data_at
            )
        extended = extended or ExtendedHeader()
        try:
            add_extended(info, _exactly(file, info.size, data_at, size), extended)
            offset = data_at + padded_size(info.size)
            file.seek(offset)
            header = _exactly(file, BLOCK, offset, size)
            if header.count(0) == BLOCK:
                raise DataError(ErrorCode.CORRUPT_SHARD, f"an extended header without its member at byte {offset}")
            info = parse_header(header, offset)
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
    extended: ExtendedHeader | None,
    *,
    start: int,
    offset: int,
    size: int,
) -> Member:
    """Combines a member's own header at `offset` with its extended headers. Raises DataError."""
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
    kind = _WITH_DATA.get(info.type, "file")
    if info.type in _WITHOUT_DATA:
        kind = _WITHOUT_DATA[info.type]
        is_passed = _can_begin if kind == "hard link" else _has_header  # zeros may be data of a member
        if stored and (_can_begin(file, data, size) or not is_passed(file, data + padded_size(stored), size)):
            stored = 0  # the size of the link's target
        elif stored and kind == "hard link":
            kind = "file"  # some programs store the data again
    if data + stored > size:
        message = f"{printable(name)!r} at byte {start} goes past the end ({size} bytes)"
        is_tar = name.lower().endswith(".tar") and _can_begin(file, data, size)  # an inner tar's members are not ours
        raise _DamageError(ErrorCode.TRUNCATED_SHARD, message, size if is_tar else offset + BLOCK)
    return Member(name, start, min(size, data + padded_size(stored)), kind, data, stored, target, sparse)


def _has_header(file: BinaryIO, offset: int, size: int) -> bool:
    file.seek(min(offset, size))
    return is_header(file.read(BLOCK))


def _can_begin(file: BinaryIO, offset: int, size: int) -> bool:
    """Returns whether a header or the end of the tar lies at a byte offset."""
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
