"""Opens the file of a shard."""

from __future__ import annotations

from typing import BinaryIO

from pipeline.inputs import Shard
from pipeline.remote import Version
from pipeline.storage import open_at


def open_shard(shard: Shard, offset: int = 0, *, skim: bool = False) -> BinaryIO:
    """The shard for reading, as `storage.open_at` opens it, if it is still what was listed. Raises OSError."""
    if shard.size < 0:  # opening a pipe would wait for ever
        raise FileNotFoundError(2, "no such file, or not a regular one")
    return open_at(shard.path, offset, skim=skim, listed=Version(shard.size, shard.mtime_ns))
