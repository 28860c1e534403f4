"""A shard: a file that holds images, and what identifies it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

LISTS = frozenset(["txt", "csv", "tsv", "jsonl", "ndjson"])
"""Extensions of lists of paths or URLs, where they are named as input."""
STANDARD_INPUT = "-"
"""The name of a list that comes from standard input."""


class ShardFormat(StrEnum):
    """What a shard is; the value is the extension of those that hold many images, but for lists."""

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
    """Of an image file: its row's; empty for others, in which keys name the rows."""
    size: int
    """Bytes; -1 where it cannot be looked at."""
    mtime_ns: int
    data: str = ""
    """Path of its bytes where they lie elsewhere: of a list from standard input."""

    @property
    def format(self) -> ShardFormat:
        """What is in it."""
        return ShardFormat.IMAGE if self.image_id else format_of(self.path)

    @property
    def id(self) -> str:
        """Hash of path, size and time of change, in 16 hexadecimal digits. The ledger's name for the shard."""
        identity = f"{self.path}\n{self.size}\n{self.mtime_ns}"
        return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def format_of(path: str) -> ShardFormat:
    """What a file is by its extension."""
    name = path.rpartition("/")[2]
    extension = extension_of(path)
    if name == STANDARD_INPUT or extension in LISTS:
        return ShardFormat.LIST
    return ShardFormat(extension) if extension in (ShardFormat.TAR, ShardFormat.PARQUET) else ShardFormat.IMAGE


def extension_of(path: str) -> str:
    """The last extension of a path, lower case and without its dot; empty where there is none.

    Spaces and dots at the end of a name do not count: other systems leave them out.
    """
    name = path.rpartition("/")[2].lower().rstrip(" .")
    return name.rpartition(".")[2] if "." in name else ""


@dataclass(frozen=True)
class TarContext:
    """What a reader that begins in the middle of a tar cannot find there."""

    first: int
    """Index of the first row of the sample that begins at the span's offset."""
    renamed: Mapping[int, str]
    """Ids by row of the span, where they depend on rows before."""


@dataclass(frozen=True, slots=True)
class Span:
    """Rows of a shard still to be captioned."""

    shard: Shard
    start: int = 0
    """Index of its first row."""
    offset: int = 0
    """Byte offset at which that row begins."""
    stop: int | None = None
    """Index after its last row; None for the shard's end."""
    tar_context: TarContext | None = None
    """Of a tar, what decides its rows and lies before it; None where nobody has looked."""
