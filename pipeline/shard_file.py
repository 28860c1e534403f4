"""Opens the file of a shard."""

from __future__ import annotations

import errno
import io
import os
import stat
from typing import BinaryIO

from pipeline import http_images
from pipeline.remote import Version
from pipeline.shards import Form, Shard
from pipeline.storage import is_remote, open_at

_NOT_FILES = {
    stat.S_IFIFO: "a pipe, not a file",
    stat.S_IFSOCK: "a socket, not a file",
    stat.S_IFCHR: "a device, not a file",
    stat.S_IFBLK: "a device, not a file",
}


def open_shard(shard: Shard, offset: int = 0, *, skim: bool = False) -> BinaryIO:
    """The shard for reading, as `storage.open_at` opens it. Raises OSError, or DataError for an image from the web."""
    if shard.size < 0:  # opening a pipe would wait for ever
        raise OSError(errno.EINVAL, _why_not(shard.path))
    if shard.form == Form.IMAGE and http_images.is_web(shard.path):
        return io.BytesIO(http_images.get(shard.path))
    listed = None if shard.data else Version(shard.size, shard.mtime_ns)
    return open_at(shard.data or shard.path, offset, skim=skim, listed=listed)


def _why_not(path: str) -> str:
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
