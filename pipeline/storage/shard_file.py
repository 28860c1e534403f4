"""Opens the files of shards and siblings."""

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
"""Number of bytes read at a time."""

_NOT_FILES = {
    stat.S_IFIFO: "a pipe, not a file",
    stat.S_IFSOCK: "a socket, not a file",
    stat.S_IFCHR: "a device, not a file",
    stat.S_IFBLK: "a device, not a file",
}


def open_shard(shard: Shard, offset: int = 0, *, skim: bool = False) -> BinaryIO:
    """Opens a shard for reading, as `open_at` does. Raises OSError, or DataError for an image from the web."""
    if shard.size < 0:  # opening a pipe would block
        raise OSError(errno.EINVAL, _why_unreadable(shard.path))
    if shard.format == ShardFormat.IMAGE and http_images.is_web(shard.path):
        return io.BytesIO(http_images.get(shard.path))
    if shard.format == ShardFormat.IMAGE and not is_remote(shard.path):
        return open_regular(shard.path)
    listed = None if shard.data else FileVersion(shard.size, shard.mtime_ns)
    return open_at(shard.data or shard.path, offset, skim=skim, listed=listed)


def open_regular(path: str) -> BinaryIO:
    """Opens a file without buffering. Raises OSError, also for a path that is not a regular file; never blocks."""
    if is_remote(path):
        return open_at(path)
    # Non-blocking, because a pipe may have replaced the file since it was listed.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "no such file, or not a regular one")
    return cast(BinaryIO, os.fdopen(descriptor, "rb", buffering=0))


def read_bounded(file: BinaryIO, limit: int) -> bytes:
    """Reads a file, which may have grown since it was listed; of a longer one somewhat more than `limit` bytes."""
    pieces, held = [], 0
    while held <= limit and (piece := file.read(PIECE_BYTES)):
        pieces.append(piece)
        held += len(piece)
    return b"".join(pieces)


def _why_unreadable(path: str) -> str:
    """Returns the reason why a listed path cannot be read."""
    if is_remote(path):
        return "cannot be accessed"
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - Path rejects some names
        if stat.S_ISDIR(mode):
            os.scandir(path).close()
            return "a folder that could not be listed"
    except OSError as error:
        return error.strerror or str(error)
    return _NOT_FILES.get(stat.S_IFMT(mode), "could not be accessed when the input was listed")
