"""A shard: a file that holds images, and what identifies it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum


class Form(StrEnum):
    """What a shard is; the value is the extension of those that hold many images."""

    IMAGE = "image"
    TAR = "tar"
    PARQUET = "parquet"


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

    @property
    def form(self) -> Form:
        """What is in it."""
        return Form.IMAGE if self.image_id else Form(self.path.lower().rpartition(".")[2])

    @property
    def id(self) -> str:
        """Hash of path, size and time of change, in 16 hexadecimal digits. The ledger's name for the shard."""
        identity = f"{self.path}\n{self.size}\n{self.mtime_ns}"
        return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:16]
