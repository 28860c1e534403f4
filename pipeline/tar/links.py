"""Resolves links inside a tar: hard links by the name in the tar, symbolic links relative to their folder."""

from __future__ import annotations

import posixpath
from typing import BinaryIO

from pipeline.errors import DataError
from pipeline.filenames import printable
from pipeline.schema import ErrorCode
from pipeline.shards import Shard
from pipeline.storage.shard_file import open_shard
from pipeline.tar.elements import Member
from pipeline.tar.walk import walk

MAX_LINKS = 40
"""Maximum number of links in a chain, as in Linux."""


class LinkResolver:
    """Finds the targets of links. Must be closed.

    The first link costs a walk over all headers of the tar; from then on memory holds the names of all members.
    """

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._file: BinaryIO | None = None
        self._starts: dict[str, list[int]] = {}

    @property
    def file(self) -> BinaryIO:
        """The tar, opened for random access."""
        if self._file is None:
            self._file = open_shard(self._shard, skim=True)
        return self._file

    def close(self) -> None:
        """Closes the file, if it was opened."""
        if self._file is not None:
            self._file.close()

    def resolve(self, link: Member) -> Member:
        """Returns the file that a link leads to, directly or by further links. Raises DataError if none, OSError."""
        if not self._starts:
            for element in walk(self.file, size=self._shard.size):
                if isinstance(element, Member):
                    self._starts.setdefault(_normal(element.name), []).append(element.start)
        member = link
        for _ in range(MAX_LINKS):
            name = _target(member)
            found = self._find(name, before=member.start if member.kind == "hard link" else None)
            if found is None:
                raise DataError(
                    ErrorCode.NO_IMAGE,
                    f"{printable(link.name)!r} is a {link.kind} to {printable(name)!r}, which is not in the tar",
                )
            if found.is_file:
                return found
            if found.kind == "other":
                raise DataError(
                    ErrorCode.NO_IMAGE,
                    f"{printable(link.name)!r} is a {link.kind} to {printable(name)!r}, a folder or device",
                )
            member = found
        raise DataError(ErrorCode.NO_IMAGE, f"{printable(link.name)!r} is a circular link, or a chain of too many")

    def _find(self, name: str, *, before: int | None) -> Member | None:
        """Returns the last member of a name, or the last one before a byte offset; resolves links to folders."""
        for _ in range(MAX_LINKS):
            starts = self._starts.get(name)
            if starts:
                earlier = [start for start in starts if before is None or start < before]
                return self._at((earlier or starts)[-1])
            folder = next((folder for folder in _folders(name) if folder in self._starts), None)
            through = self._at(self._starts[folder][-1]) if folder else None
            if folder is None or through is None or through.kind == "other":
                return None
            name = _normal(f"{_target(through)}/{name[len(folder) + 1 :]}")
        return None

    def _at(self, start: int) -> Member | None:
        element = next(walk(self.file, size=self._shard.size, offset=start))
        return element if isinstance(element, Member) else None


def _target(link: Member) -> str:
    """Returns the name in the tar of a link's target."""
    if link.kind == "hard link":
        return _normal(link.target)
    return _normal(posixpath.join(posixpath.dirname(link.name), link.target))


def _normal(name: str) -> str:
    return posixpath.normpath(name)


def _folders(name: str) -> list[str]:
    """Returns the folders above a name, the nearest first."""
    parts = name.split("/")
    return ["/".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]
