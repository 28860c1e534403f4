"""Reads an image from the location that a list or Parquet file gives: a path, a URL of a store, or a web URL."""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import stat
import time
from urllib.parse import unquote, urlsplit

from pipeline.errors import DataError, InputError
from pipeline.filenames import printable
from pipeline.read_options import check_size
from pipeline.schema import ErrorCode
from pipeline.shards import ShardFormat, format_of
from pipeline.storage import http_images, other_stores
from pipeline.storage.filesystems import filesystem, is_remote, is_s3, open_at

_FILE = "file://"
UNREACHABLE_S = 60.0
"""Seconds for which a store that did not answer counts as unreachable."""
_unreachable: dict[str, tuple[float, InputError]] = {}
"""Stores that did not answer: the monotonic time until which they are not asked again, and the error."""
_reachable: set[str] = set()


def read_image_at(location: str, folder: str, *, confined: bool, max_bytes: int) -> bytes:
    """Reads the encoded image at a location. Raises DataError.

    Args:
        location: a path, which need not be UTF-8, or a URL.
        folder: the folder to which a path is relative: a local path or a URL.
        confined: whether only files below `folder`, links resolved, and images from the web may be read.
        max_bytes: maximum size of the image in bytes.
    """
    location = location if confined else _clean_location(location, folder)
    if http_images.is_web(location):
        return http_images.get(location, max_bytes)
    url = _resolved(location, folder)
    if confined and not _is_below(url, folder):
        raise _unreadable(f"{url} lies outside of {folder}; --images_root names a folder that paths may lead into")
    form = format_of(url)
    if form != ShardFormat.IMAGE:
        raise _unreadable(f"{url} is not an image but a {form}; name it as an input")
    try:
        return _read(url, max_bytes)
    except (OSError, InputError, ValueError) as error:  # ValueError: a zero byte in a path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _unreadable(f"{url}: {reason}") from error


def _clean_location(location: str, folder: str) -> str:
    """Strips spaces and quotes around a location and expands ~, unless a local file has exactly that name."""
    tidy = location.strip()
    if len(tidy) > 2 and tidy[0] == tidy[-1] and tidy[0] in "\"'":  # noqa: PLR2004 - two quotes and something between them
        tidy = tidy[1:-1]
    if tidy == location and not tidy.startswith("~"):
        return location
    if not is_remote(location) and not is_remote(folder) and os.path.lexists(_resolved(location, folder)):
        return location
    return os.path.expanduser(tidy)  # noqa: PTH111 - Path would raise where there is no such user


def _resolved(location: str, folder: str) -> str:
    if location.lower().startswith(_FILE):
        location = unquote(urlsplit(location).path, errors="surrogateescape")
    if is_remote(location):
        scheme, _, rest = location.partition("://")
        return f"{scheme}://{posixpath.normpath(rest)}"
    if is_remote(folder):
        scheme, _, rest = folder.partition("://")
        return f"{scheme}://{posixpath.normpath(posixpath.join(rest, location))}"
    return os.path.join(folder, location)  # noqa: PTH118 - Path would drop `./` and `//`, and be made for each of millions


def _is_below(url: str, folder: str) -> bool:
    if is_remote(url) or is_remote(folder):
        return url.startswith(f"{folder.rstrip('/')}/")
    try:
        real, top = os.path.realpath(url), os.path.realpath(folder)
        return os.path.commonpath([real, top]) == top
    except (OSError, ValueError):
        return False


def _read(url: str, max_bytes: int) -> bytes:
    if not is_remote(url):
        status = os.stat(url)  # noqa: PTH116
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, "a folder, not an image")
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise OSError(errno.EINVAL, "not a regular file")
    elif not is_s3(url):
        _check_reachable(url)
    with open_at(url) as file:
        size = file.seek(0, os.SEEK_END)
        check_size(size, max_bytes)
        file.seek(0)
        return file.read()


def _unreadable(message: str) -> DataError:
    return DataError(ErrorCode.UNREADABLE, printable(message))


def _check_reachable(url: str) -> None:
    """Checks once that the store of a URL answers. Raises InputError if it does not.

    This way the many images of a list do not each wait for a store that does not answer.
    """
    scheme, _, rest = url.partition("://")
    store = f"{scheme}://{rest.partition('/')[0]}"
    if store in _reachable:
        return
    until, error = _unreachable.get(store, (0.0, None))
    if error and time.monotonic() < until:
        raise error

    def ask() -> None:
        system, path = filesystem(url)
        with contextlib.suppress(OSError):  # an error is an answer, too
            system.get_file_info(path)

    try:
        other_stores.with_timeout(ask, store)
    except InputError as silence:
        _unreachable[store] = time.monotonic() + UNREACHABLE_S, silence
        raise
    _reachable.add(store)
