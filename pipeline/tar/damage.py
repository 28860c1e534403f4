"""Distinguishes padding from damage where a tar has no header, and finds the next header behind it."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from pipeline.errors import DataError
from pipeline.file_types import COMPRESSION, recognize
from pipeline.schema import ErrorCode
from pipeline.tar.elements import Gap, Padding, padded_size
from pipeline.tar.headers import BLOCK, is_header

SEARCH_BYTES = 1 << 20
"""Number of bytes read at a time while searching for a header."""
RECORD = tarfile.RECORDSIZE
_MAGIC, _MAGIC_AT = b"ustar", 257
_CHECKSUM, _CHECKSUM_AT = re.compile(rb"[ 0]*[0-7]{3,6}[ \0]"), 148


def classify_zeros(file: BinaryIO, start: int, size: int) -> Gap | Padding:
    """Classifies a block of zeros: padding at the end of the tar or before a concatenated tar, or damage."""
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
    # Tars end in two blocks of zeros, and most fill up the last record; any other number of blocks is damage.
    if is_followed and behind - start >= 2 * BLOCK and (behind - start == 2 * BLOCK or behind % RECORD == 0):
        return Padding(start, behind)
    zeros = DataError(ErrorCode.CORRUPT_SHARD, f"zeros instead of a header at byte {start}")
    return skip_damage(file, start, size, zeros, searched=behind)


def skip_damage(file: BinaryIO, start: int, size: int, damage: DataError, *, searched: int) -> Gap:
    """Returns the damage from `start` up to the next header, the padding at the end of the tar, or the end of the file.

    Args:
        damage: the error at `start`.
        searched: byte offset from which the next header is searched.
    """
    file.seek(start)
    head = file.read(BLOCK) if start == 0 else b""
    found, filled = (None, size) if head.startswith(COMPRESSION) else _search(file, searched, size, grid=start)
    if found is None and (what := recognize(head)):
        return Gap(start, size, ErrorCode.CORRUPT_SHARD, f"not a tar but {what} ({damage.message})")
    if found is None and damage.code == ErrorCode.TRUNCATED_SHARD:
        return Gap(start, size, damage.code, f"{damage.message}; {size - start} bytes lost")
    if found is None:
        stop = start + padded_size(max(filled, start + 1) - start)
        stop = stop if size - stop >= BLOCK else size
        message = f"{damage.message}; {stop - start} bytes lost, behind which no header is found"
        return Gap(start, stop, ErrorCode.CORRUPT_SHARD, message)
    message = f"{damage.message}; {found - start} bytes lost, read on at byte {found}"
    return Gap(start, found, ErrorCode.CORRUPT_SHARD, message)


def find_header(file: BinaryIO, *, start: int, stop: int) -> int | None:
    """Returns the byte offset of the first header in [start, stop), or None.

    A header with the magic `ustar`, as written since 1988, is found at any byte; an older one only in steps of 512
    bytes from `start`. A block counts as a header if its checksum is correct, so image data is not mistaken for one,
    but the headers of a tar inside the tar are found.
    """
    return _search(file, start, stop, grid=start)[0]


def _search(file: BinaryIO, start: int, stop: int, *, grid: int) -> tuple[int | None, int]:
    """Returns the offset of the first header, and the offset behind the last nonzero byte before it.

    Args:
        grid: a byte offset at which a block of 512 bytes begins.
    """
    at, filled, kept, step = start, start, b"", 8 * BLOCK  # small at first: damage is often short
    while at < stop:
        file.seek(at + len(kept))
        read, step = file.read(step), min(2 * step, SEARCH_BYTES)
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
    """Yields the blocks whose checksum field is well-formed, to find headers from before `ustar`."""
    for at in range(-shift % BLOCK, len(chunk) - BLOCK + 1, BLOCK):
        if _CHECKSUM.match(chunk, at + _CHECKSUM_AT) and chunk[at]:
            yield at


def _skip_zeros(file: BinaryIO, start: int, size: int) -> int:
    """Returns the offset of the first nonzero byte; `size` if there is none."""
    file.seek(start)
    at = start
    while chunk := file.read(SEARCH_BYTES):
        rest = chunk.lstrip(b"\0")
        if rest:
            return min(size, at + len(chunk) - len(rest))
        at += len(chunk)
    return size


def _zeros_before(file: BinaryIO, offset: int) -> int:
    """Returns where the zeros up to the end of the tar begin: at `offset`, or inside the data of the last member.

    A file may end in zeros, but they rarely begin exactly at a block unless a disk or a copy lost blocks.
    """
    first, step = offset, BLOCK
    while first > 0:
        file.seek(max(0, first - step))
        rest = file.read(min(step, first)).rstrip(b"\0")
        first, step = max(0, first - step), SEARCH_BYTES
        if rest:
            first += len(rest)
            break
    if first == offset or first < BLOCK or (offset - first) % BLOCK:
        return offset
    file.seek(first - BLOCK)
    return offset if is_header(file.read(BLOCK)) else first
