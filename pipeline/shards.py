"""Shards, the files that hold images, and spans, the ranges of their rows that are to be captioned."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

LISTS = frozenset(["txt", "csv", "tsv", "jsonl", "ndjson"])
"""Extensions of input files that are read as lists of paths or URLs."""
STANDARD_INPUT = "-"
"""The input name that stands for a list on standard input."""


class ShardFormat(StrEnum):
    """The format of a shard; for tars and Parquet files the value is their extension."""

    IMAGE = "image"
    TAR = "tar"
    PARQUET = "parquet"
    LIST = "list"


@dataclass(frozen=True, slots=True)
class Shard:
    """A file that holds images."""

    path: str
    """Absolute path, which need not be UTF-8, or URL."""
    image_id: str
    """The row's image_id for an image file; empty for shards of many images."""
    size: int
    """Size in bytes; -1 if it cannot be determined."""
    mtime_ns: int
    data: str = ""
    """Path of the file that holds the bytes of a list from standard input; empty for all other shards."""

    @property
    def format(self) -> ShardFormat:
        """The format, by file extension."""
        return ShardFormat.IMAGE if self.image_id else format_of(self.path)

    @property
    def id(self) -> str:
        """Hash of path, size and time of change, in 16 hexadecimal digits: identifies the shard in the commit log."""
        identity = f"{self.path}\n{self.size}\n{self.mtime_ns}"
        return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def format_of(path: str) -> ShardFormat:
    """Returns the format of a file by its extension."""
    name = path.rpartition("/")[2]
    extension = extension_of(path)
    if name == STANDARD_INPUT or extension in LISTS:
        return ShardFormat.LIST
    return ShardFormat(extension) if extension in (ShardFormat.TAR, ShardFormat.PARQUET) else ShardFormat.IMAGE


def extension_of(path: str) -> str:
    """Returns the last extension of a path, in lower case and without its dot; empty if there is none.

    Spaces and dots at the end of a name are ignored, as other systems drop them.
    """
    name = path.rpartition("/")[2].lower().rstrip(" .")
    return name.rpartition(".")[2] if "." in name else ""


@dataclass(frozen=True)
class TarContext:
    """Facts from earlier in a tar that a reader needs to begin in the middle of it."""

    first: int
    """Index of the first row of the sample that begins at the span's offset."""
    renamed: Mapping[int, str]
    """image_id by row index, for those rows of the span whose id depends on earlier rows."""


@dataclass(frozen=True, slots=True)
class Span:
    """A range of rows of a shard that is still to be captioned."""

    shard: Shard
    start: int = 0
    """Index of its first row."""
    offset: int = 0
    """Byte offset at which that row begins."""
    stop: int | None = None
    """Index after its last row; None: up to the end of the shard."""
    tar_context: TarContext | None = None
    """Facts from before the span, for tars; None: the reader walks the headers before the span."""
