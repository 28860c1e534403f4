"""Opens the file of a shard, and what lies beside an image."""

from __future__ import annotations

import errno
import io
import os
import stat
from typing import BinaryIO, cast

from pipeline.shards import Shard, ShardFormat
from pipeline.storage import http_images
from pipeline.storage.filesystems import is_remote, open_at
from pipeline.storage.remote_file import FileVersion

PIECE_BYTES = 1 << 20
"""Read at a time."""

_NOT_FILES = {
    stat.S_IFIFO: "a pipe, not a file",
    stat.S_IFSOCK: "a socket, not a file",
    stat.S_IFCHR: "a device, not a file",
    stat.S_IFBLK: "a device, not a file",
}


def open_shard(shard: Shard, offset: int = 0, *, skim: bool = False) -> BinaryIO:
    """The shard for reading, as `storage.open_at` opens it. Raises OSError, or DataError for an image from the web."""
    if shard.size < 0:  # opening a pipe would wait for ever
        raise OSError(errno.EINVAL, _why_unreadable(shard.path))
    if shard.format == ShardFormat.IMAGE and http_images.is_web(shard.path):
        return io.BytesIO(http_images.get(shard.path))
    if shard.format == ShardFormat.IMAGE and not is_remote(shard.path):
        return open_regular(shard.path)
    listed = None if shard.data else FileVersion(shard.size, shard.mtime_ns)
    return open_at(shard.data or shard.path, offset, skim=skim, listed=listed)


def open_regular(path: str) -> BinaryIO:
    """A file that is read at once, without a buffer. Raises OSError, also for what is no regular file: never waits."""
    if is_remote(path):
        return open_at(path)
    # Without waiting: a pipe may have been put there since it was listed.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "no such file, or not a regular one")
    return cast(BinaryIO, os.fdopen(descriptor, "rb", buffering=0))


def read_bounded(file: BinaryIO, limit: int) -> bytes:
    """All of a file, which may have grown since it was listed; of more than `limit` bytes, some more than those."""
    pieces, held = [], 0
    while held <= limit and (piece := file.read(PIECE_BYTES)):
        pieces.append(piece)
        held += len(piece)
    return b"".join(pieces)


def _why_unreadable(path: str) -> str:
    """Why something that was listed cannot be read."""
    if is_remote(path):
        return "cannot be looked at"
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - of names of any length
        if stat.S_ISDIR(mode):
            os.scandir(path).close()
            return "a folder that could not be listed"
    except OSError as error:
        return error.strerror or str(error)
    return _NOT_FILES.get(stat.S_IFMT(mode), "could not be looked at when the input was listed")
