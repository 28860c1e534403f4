"""Counts the images of a tar for `verify` by the standard library's `tarfile`, independently of the reader's walk.

The rules of docs/inputs.md for image_ids are implemented again here, for tars that `tarfile` reads completely. In
others, images and rows are counted by WebDataset's key, because two readers may group members differently.
"""

from __future__ import annotations

import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Self

from pipeline.filenames import printable

BLOCK = tarfile.BLOCKSIZE
_LISTING, _LABEL = b"D", b"V"
"""GNU tar's types for the listing of a folder and the name of a volume, which `tarfile` takes for files."""
LONGEST_PADDING = 1 << 20
"""Maximum number of bytes between two concatenated tars that are checked to be zeros."""
LONGEST_HEADER = 16 << 20
_NUMBERED = re.compile(r"#\d+$")

IsImage = Callable[[str], bool]
"""Decides by a member's name whether it is an image."""


@dataclass
class TarContents:
    """The contents of a tar according to `tarfile`."""

    images: list[str] = field(default_factory=list)
    """Names of the members that are images, in order, including links."""
    ids: list[str] = field(default_factory=list)
    """The expected image_ids, if `is_whole`."""
    is_whole: bool = True
    """True if the file holds only complete members and zeros."""
    is_cut: bool = False
    """True if the file ends without the zeros at the end of a tar."""


def count_images(file: BinaryIO, size: int, is_image: IsImage) -> TarContents:
    """Counts the images of a tar by its headers. Raises OSError.

    Args:
        file: the tar.
        size: size of the tar in bytes.
        is_image: decides by a member's name whether it is an image.
    """
    found, taken = TarContents(), _IdAssigner()
    sample: dict[str, str] = {}
    key, stop, is_adjacent = "", 0, True
    for member, behind in _members(file, size):
        if member is None:
            found.is_whole = False
            continue
        if member.offset != stop:
            is_adjacent = False
            found.is_whole = found.is_whole and _is_padding(file, stop, member.offset)
        stop, has_data = behind, _has_data(member)
        if member.size and not has_data and member.type != _LISTING:
            found.is_whole = False  # some have data all the same, and `tarfile` does not look
        if _data_end(member) > size:
            found.is_whole = False  # it was cut
        elif (has_data or member.issym() or member.islnk()) and not _is_macos_metadata(member.name):
            own, extension = _split(member.name)
            if not is_adjacent or own != key or extension in sample:
                found.ids += taken.ids(key, [name for name in sample.values() if is_image(name)])
                sample = {}
            key, is_adjacent, sample[extension] = own, True, member.name
            if is_image(member.name):
                found.images.append(member.name)
    found.ids += taken.ids(key, [name for name in sample.values() if is_image(name)])
    found.is_cut = size - stop < BLOCK
    return found


def _members(file: BinaryIO, size: int) -> Iterator[tuple[tarfile.TarInfo | None, int]]:
    """Yields the members that `tarfile` finds, with the offset behind each; None where it fails and is restarted."""
    start = 0
    while start < size:
        file.seek(start)
        tar = _Tar(
            fileobj=_Headers(file),  # type: ignore[arg-type]
            ignore_zeros=True,
            encoding="utf-8",
            errors="surrogateescape",
            tarinfo=_Info,
        )
        behind, header = start + BLOCK, start
        while (member := tar.next()) is not None and member.size >= 0:
            tar.members = []  # type: ignore[attr-defined] # else it keeps all members
            behind, header = member.offset_data, tar.offset
            yield member, tar.offset
            if _data_end(member) > size and member.name.lower().endswith(".tar"):
                return  # the members of an inner tar are not this tar's
        if member is None and not tar.gave_up:
            return
        yield None, behind
        failed = tar.offset if tar.offset <= size else header  # it may have passed the end before it failed
        start = max(behind, failed + BLOCK if failed <= size else 0)


def _has_data(member: tarfile.TarInfo) -> bool:
    return member.isreg() or member.type not in (*tarfile.SUPPORTED_TYPES, _LISTING, _LABEL)


def _data_end(member: tarfile.TarInfo) -> int:
    parts: list[tuple[int, int]] | None = member.sparse  # type: ignore[assignment]
    stored = sum(count for _, count in parts) if parts else member.size
    return member.offset_data + (stored if _has_data(member) else 0)


class _Info(tarfile.TarInfo):
    """Parses names in GNU headers, which have backup times instead of the name's prefix."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        gnu = bytearray(buf)
        info = super().frombuf(buf, encoding, errors)
        if gnu[257:265] == b"ustar  \0" and gnu[345]:
            gnu[345:500] = bytes(155)
            gnu[148:156] = b"%06o\0 " % tarfile.calc_chksums(gnu)[0]  # type: ignore[attr-defined]
            info.name = super().frombuf(gnu, encoding, errors).name
        return info


class _Tar(tarfile.TarFile):
    """A `TarFile` that records whether an error stopped it, and ignores global headers: members name themselves."""

    gave_up = False

    @property
    def pax_headers(self) -> dict[str, str]:
        return {}

    @pax_headers.setter
    def pax_headers(self, found: object) -> None:
        pass

    def next(self) -> tarfile.TarInfo | None:
        try:
            return super().next()
        except OSError:
            raise
        except Exception:  # noqa: BLE001 - the boundary around the standard library's parser of foreign bytes
            self.gave_up = True
            return None


class _Headers:
    """The file interface that `tarfile` needs, which rejects headers that claim to be larger than memory."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell, self._file = file.seek, file.tell, file

    def read(self, count: int) -> bytes:
        if count > LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {count} bytes")
        return self._file.read(count)


class _IdAssigner:
    """Assigns image_ids that earlier rows do not have."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._numbers = Counter[str]()

    def ids(self, key: str, images: Sequence[str]) -> list[str]:
        """Returns the ids of the images of one sample."""
        stems = Counter(map(_stem, images))
        return [self._id(key if len(images) == 1 else None, name, stems[_stem(name)] == 1) for name in images]

    def _id(self, key: str | None, name: str, is_stem_telling: bool) -> str:
        specific = printable(name)
        for candidate in (key and printable(key), printable(_stem(name)) if is_stem_telling else None, specific):
            if candidate and candidate not in self._ids:
                break
        while not candidate or candidate in self._ids:
            self._numbers[specific] += 1
            candidate = f"{specific}#{self._numbers[specific] + 1}"
        self._ids.add(candidate)
        return candidate


def key_family(name: str) -> str:
    """Returns the common part of the ids of all images with one key, without a number at the end."""
    return _NUMBERED.sub("", _split(_NUMBERED.sub("", name))[0])


def _split(name: str) -> tuple[str, str]:
    """Splits key and extension at the first dot that does not begin the last part of the name."""
    base = name.rpartition("/")[2]
    dot = base.find(".", len(base) - len(base.lstrip(".")))
    length = len(name) if dot < 0 else len(name) - len(base) + dot
    return name[:length], name[length + 1 :].lower()


def _stem(name: str) -> str:
    dot = name.rfind(".")
    return name[:dot] if dot > name.rfind("/") + 1 else name


def _is_macos_metadata(name: str) -> bool:
    *folders, base = name.split("/")
    return base.startswith("._") or base == ".DS_Store" or "__MACOSX" in folders


def _is_padding(file: BinaryIO, start: int, stop: int) -> bool:
    """Returns whether there are only zeros or a global header; `tarfile` also skips anything else silently."""
    if not 0 < stop - start <= LONGEST_PADDING:
        return False
    file.seek(start)
    rest = file.read(stop - start).lstrip(b"\0")
    blocks = -(-len(rest) // BLOCK) * BLOCK
    return not rest or rest.rjust(blocks, b"\0")[156:157] == tarfile.XGLTYPE
