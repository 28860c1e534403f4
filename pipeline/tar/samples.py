"""Groups the members of a tar into samples. docs/inputs.md describes the rules for users.

Adjacent members with the same key form a sample. The key is WebDataset's: the name up to the first dot of its last
part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from pipeline.errors import DataError
from pipeline.filenames import printable
from pipeline.tar.elements import Element, Gap, Member, read_member
from pipeline.tar.walk import walk

ReadAhead = Callable[[Member, int], bytes | None]
"""Reads a member while the walk passes it, or returns None; receives the number of bytes buffered for its sample."""


@dataclass(slots=True)
class Sample:
    """Adjacent members that share a key."""

    key: str
    start: int
    """Byte offset of its first header."""
    stop: int = 0
    """Byte offset behind its last member."""
    files: dict[str, bytes | None] = field(default_factory=dict)
    """Contents by lower-case extension without the first dot ("" if there is none); None if not read ahead."""
    members: dict[str, Member] = field(default_factory=dict)
    """Members by the same extensions."""
    buffered_bytes: int = 0
    """Total size of the files that were read ahead."""
    hidden: int = 0
    """Number of hidden macOS files among its members."""


def read_samples(
    file: BinaryIO, *, size: int, offset: int = 0, wanted: Callable[[str], bool] = lambda extension: True
) -> Iterator[Sample]:
    """Yields the samples of an undamaged tar, such as one that `shardtalk prepare` wrote.

    Args:
        file: the tar.
        size: size of the whole tar in bytes.
        offset: 0, or the `stop` of a sample.
        wanted: selects the extensions to read; the bytes of other members are skipped.

    Raises DataError for damage, after all complete samples before it.
    """

    def read_ahead(member: Member, buffered_bytes: int) -> bytes | None:
        return read_member(file, member) if wanted(split_name(member.name)[1]) else None

    for found in group_samples(walk(file, size=size, offset=offset), read_ahead):
        if isinstance(found, Gap):
            raise DataError(found.code, found.message)
        if isinstance(found, Sample):
            yield found


def group_samples(
    elements: Iterable[Element], read_ahead: ReadAhead = lambda member, buffered_bytes: None
) -> Iterator[Sample | Gap | Member]:
    """Yields samples, damaged places, and hidden files that lie in no sample. Holds one sample at a time."""
    sample: Sample | None = None
    for element in elements:
        if type(element) is not Member:
            if sample:
                yield sample
                sample = None
            if type(element) is Gap:
                yield element
        elif _is_hidden(element.name):
            if sample:
                sample.hidden += 1
            else:
                yield element
        elif element.kind != "other":
            key, extension = split_name(element.name)
            if sample and (key != sample.key or extension in sample.files):
                yield sample
                sample = None
            sample = sample or Sample(key, element.start)
            data = read_ahead(element, sample.buffered_bytes)
            sample.files[extension], sample.members[extension] = data, element
            sample.buffered_bytes, sample.stop = sample.buffered_bytes + len(data or b""), element.stop
    if sample:
        yield sample


def split_name(name: str) -> tuple[str, str]:
    """Splits a name by WebDataset's rule: "a/b.seg.png" into "a/b" and "seg.png". Leading dots belong to the key."""
    folder, slash, base = name.rpartition("/")
    leading = len(base) - len(base.lstrip("."))
    stem, _, extension = base[leading:].partition(".")
    return printable(f"{folder}{slash}{base[:leading]}{stem}"), extension.lower()


def _is_hidden(name: str) -> bool:
    """Returns whether a file is macOS metadata: AppleDouble, folder settings, or inside `__MACOSX`."""
    folder, _, base = name.rpartition("/")
    return base.startswith("._") or base == ".DS_Store" or ("__MACOSX" in folder and "__MACOSX" in folder.split("/"))
