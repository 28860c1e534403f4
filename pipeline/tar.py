"""Streams the samples of a WebDataset tar front to back, from any byte offset at which a sample begins.

A sample is a run of members that share a key: the name up to the first dot of its last part. Headers are parsed by the
standard library; the walk is ours because `tarfile` takes a tar cut between two members for a complete one.
Reads GNU, PAX and USTAR headers with long names. Does not read compressed tars, which have no offsets to resume from.
"""

from __future__ import annotations

import contextlib
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from pipeline.errors import DataError
from pipeline.names import printable

BLOCK = tarfile.BLOCKSIZE
MAX_HEADER_BYTES = 1 << 20  # of one long name or PAX record: far more than any path, far less than memory


@dataclass(frozen=True, slots=True)
class Member:
    """A file of the tar. `data` is None where it was not asked for."""

    name: str
    data: bytes | None
    start: int
    """Byte offset of its first header."""
    stop: int
    """Byte offset after its last block."""


@dataclass(slots=True)
class Sample:
    """The members that share a key."""

    key: str
    start: int
    """Byte offset of the first header."""
    stop: int = 0
    """Byte offset at which the next sample begins."""
    files: dict[str, bytes | None] = field(default_factory=dict)
    """By lower-case extension without the first dot; "" for a member that has none."""


def samples(
    file: BinaryIO, *, size: int, offset: int = 0, wanted: Callable[[str], bool] = lambda extension: True
) -> Iterator[Sample]:
    """Yields the samples from `offset` on. Holds one sample at a time.

    Args:
        file: positioned at `offset`, which is 0 or some sample's `stop`.
        size: of the whole tar, in bytes.
        wanted: which extensions to read; the bytes of other members are skipped.

    Raises DataError where the tar ends early or makes no sense, after all whole samples before that place.
    """
    return grouped(members(file, size=size, offset=offset, wanted=wanted))


def grouped(found: Iterable[Member]) -> Iterator[Sample]:
    """The samples that members make up. Raises what the iterable raises, after all whole samples before that place."""
    sample: Sample | None = None
    try:
        for member in found:
            key, extension = split_name(member.name)
            if sample and (key != sample.key or extension in sample.files):
                yield sample
                sample = None
            sample = sample or Sample(key, member.start)
            sample.files[extension] = member.data
            sample.stop = member.stop
    except DataError:
        if sample:  # its last member is whole, and the cut may lie just behind it
            yield sample
        raise
    if sample:
        yield sample


def split_name(name: str) -> tuple[str, str]:
    """WebDataset's rule: "a/b.seg.png" is key "a/b" and extension "seg.png"."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    if not stem:  # ".hidden" has a name and no extension
        stem, extension = base, ""
    return printable(folder + slash + stem), extension.lower()


def members(file: BinaryIO, *, size: int, offset: int, wanted: Callable[[str], bool]) -> Iterator[Member]:
    """Yields the files of the tar. Arguments and errors are those of `samples`."""
    start, extended = offset, dict[str, str]()
    while True:
        header = _read(file, BLOCK, offset, "a header")
        if header.count(0) == BLOCK:  # end of archive: a second zero block, if cut off, held nothing
            if extended:
                raise DataError("corrupt_shard", f"an extended header without its member at byte {offset}")
            return
        info = _parse(header, offset)
        if "size" in extended:
            info.size = _number(extended["size"], offset)
        if info.size < 0:  # base-256 headers can say so; it would be read for ever
            raise DataError("corrupt_shard", f"a size of {info.size} bytes at byte {offset}")
        data_start, offset = offset + BLOCK, offset + BLOCK + -(-info.size // BLOCK) * BLOCK
        if data_start + info.size > size:
            raise DataError(
                "truncated_shard",
                f"{printable(info.name)!r} at byte {start} goes past the end ({size} bytes)",
            )
        if info.type in (
            tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK,
            tarfile.XHDTYPE,
            tarfile.XGLTYPE,
        ):
            extended |= _extended(info, file, data_start)
            _skip(file, offset - data_start - info.size, data_start)
            continue
        name = extended.get("path", info.name)
        regular = info.isreg()  # a sparse file is, and comes as it is stored: an image that does not decode
        take = regular and wanted(split_name(name)[1])
        data = _read(file, info.size, data_start, printable(name)) if take else None
        _skip(file, offset - data_start - (info.size if take else 0), data_start)
        if regular:
            yield Member(name, data, start, offset)
        start, extended = offset, {}


def find_header(file: BinaryIO, *, start: int, stop: int) -> int | None:
    """Byte offset of the first block in [start, stop) that may be a header: its sum is right. Images hold none."""
    first = -(-start // BLOCK) * BLOCK
    file.seek(first)
    for offset in range(first, stop, BLOCK):
        block = file.read(BLOCK)
        if block[257:262] == b"ustar":  # of all formats with long names; the oldest is found by walking
            with contextlib.suppress(tarfile.HeaderError):
                tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
                return offset
    return None


def _parse(header: bytes, offset: int) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        compressed = offset == 0 and header.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"))
        reason = "compressed tars are not read; unpack it first" if compressed else f"no tar header at byte {offset}"
        raise DataError("corrupt_shard", f"{reason} ({error})") from error


def _extended(info: tarfile.TarInfo, file: BinaryIO, offset: int) -> dict[str, str]:
    """What a GNU or PAX header says of the next member: its "path" or "size"."""
    if info.size > MAX_HEADER_BYTES:
        raise DataError("corrupt_shard", f"an extended header of {info.size} bytes at byte {offset}")
    data = _read(file, info.size, offset, "an extended header")
    if info.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": data.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    if info.type != tarfile.XHDTYPE:  # global headers carry comments, long links no file
        return {}
    records = {}
    while data.strip(b"\0"):
        length_text, _, rest = data.partition(b" ")
        length = _number(length_text.decode("ascii", "replace"), offset)
        keyword, equals, value = data[len(length_text) + 1 : length - 1].partition(b"=")
        if not equals or not rest or not len(length_text) < length <= len(data):  # 0 would be read for ever
            raise DataError("corrupt_shard", f"a malformed PAX header at byte {offset}")
        if keyword in (b"path", b"size"):
            records[keyword.decode()] = value.decode("utf-8", "surrogateescape")
        data = data[length:]
    return records


def _number(text: str, offset: int) -> int:
    if not text.isdecimal() or len(text) > 19:  # noqa: PLR2004 - digits of 2**63
        raise DataError("corrupt_shard", f"{text[:20]!r} is no size, at byte {offset}")
    return int(text)


def _read(file: BinaryIO, count: int, offset: int, what: str) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise DataError("truncated_shard", f"the tar ends at byte {offset + len(data)}, inside or before {what}")
    return data


def _skip(file: BinaryIO, count: int, offset: int) -> None:
    """Passes over padding, which may be cut, and unwanted data, which was checked against the size."""
    if count:
        file.seek(count, 1)
