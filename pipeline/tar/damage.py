"""What lies in a tar where a header should be: padding, or damage, and where the next header is behind it."""

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
"""Read at a time where a header is looked for."""
RECORD = tarfile.RECORDSIZE
_MAGIC, _MAGIC_AT = b"ustar", 257
_CHECKSUM, _CHECKSUM_AT = re.compile(rb"[ 0]*[0-7]{3,6}[ \0]"), 148


def classify_zeros(file: BinaryIO, start: int, size: int) -> Gap | Padding:
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
    return skip_damage(file, start, size, zeros, searched=behind)


def skip_damage(file: BinaryIO, start: int, size: int, damage: DataError, *, searched: int) -> Gap:
    """Damage up to the next header, or to the padding at the end of the tar, or to the end."""
    file.seek(start)
    head = file.read(BLOCK) if start == 0 else b""
    found, filled = (None, size) if head.startswith(COMPRESSION) else _search(file, searched, size, grid=start)
    if found is None and (what := recognize(head)):
        return Gap(start, size, ErrorCode.CORRUPT_SHARD, f"no tar, but {what} ({damage.message})")
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
    at, filled, kept, step = start, start, b"", 8 * BLOCK  # small at first: in a tar of nothing but damage, it is near
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
    """Blocks whose sum is written as one, for headers of the time before `ustar`."""
    for at in range(-shift % BLOCK, len(chunk) - BLOCK + 1, BLOCK):
        if _CHECKSUM.match(chunk, at + _CHECKSUM_AT) and chunk[at]:
            yield at


def _skip_zeros(file: BinaryIO, start: int, size: int) -> int:
    """Byte offset of the first byte that is not zero; `size` if there is none."""
    file.seek(start)
    at = start
    while chunk := file.read(SEARCH_BYTES):
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
        first, step = max(0, first - step), SEARCH_BYTES
        if rest:
            first += len(rest)
            break
    if first == offset or first < BLOCK or (offset - first) % BLOCK:
        return offset
    file.seek(first - BLOCK)
    return offset if is_header(file.read(BLOCK)) else first
