"""Opens files on any filesystem: local, S3, and those that pyarrow or fsspec know."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.fs as pafs

from pipeline.errors import InputError
from pipeline.storage import other_stores
from pipeline.storage.remote_file import RANGE_BYTES, FileVersion, PyArrowSource, RangeSource, RemoteFile

READ_AHEAD_BYTES = 1 << 20
SKIMMED_BYTES = 4 << 10, 1 << 20
"""Bytes per read, locally and remotely, if little of a file is needed: a round trip takes as long as 1 MiB."""
CONNECTIONS = 24
"""Number of concurrent requests to a store, if there are many small ones."""


def is_remote(url: str) -> bool:
    """Returns whether `url` names a filesystem, as in "s3://bucket/key"; otherwise it is a local path."""
    return "://" in url


def is_s3(url: str) -> bool:
    """Returns whether `url` names an object or folder of an S3 store."""
    return url.startswith("s3://")


def filesystem(url: str) -> tuple[pafs.FileSystem, str]:
    """Returns the filesystem of a URL and the path in it. Raises InputError if it cannot be reached.

    The path is not unquoted: "s3://bucket/50%.jpg" is a valid URL.
    """
    if not is_remote(url):
        return pafs.LocalFileSystem(), str(Path(url).absolute())
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    if ":" in (host if scheme == "s3" else host.rpartition("@")[0]):
        raise InputError(f"an {scheme} URL must not hold a password, as it is logged; give that in the environment")
    system, base = _connected(scheme, host)
    return system, f"{base}/{path}"


@lru_cache(maxsize=16)
def _connected(scheme: str, host: str) -> tuple[pafs.FileSystem, str]:
    """Returns a filesystem, shared so that connections are reused, and the prefix of its paths."""
    if scheme == "s3":
        from pipeline.storage.s3_filesystem import S3Handler

        return pafs.PyFileSystem(S3Handler()), host
    try:
        return other_stores.connect(scheme, host)
    except (OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"{scheme}://{host} cannot be opened: {error}") from error


def open_at(url: str, offset: int = 0, *, skim: bool = False, listed: FileVersion | None = None) -> BinaryIO:
    """Opens a file for reading at a byte offset. Local paths need not be UTF-8.

    Opening or reading raises OSError; ChangedError if an S3 object was replaced after it was listed, or while it is
    read.

    Args:
        url: local path or URL.
        offset: byte offset of the first read.
        skim: whether only small parts of the file will be read.
        listed: size and time of change from a listing; None does not check them.
    """
    here, remotely = SKIMMED_BYTES if skim else (READ_AHEAD_BYTES, RANGE_BYTES)
    if is_remote(url):
        raw = RemoteFile(_source(url, listed), range_bytes=remotely)
        file = cast(BinaryIO, io.BufferedReader(raw, READ_AHEAD_BYTES))
    else:
        file = Path(url).open("rb", buffering=here)  # noqa: SIM115 - the caller closes it
    file.seek(offset)
    return file


def _source(url: str, listed: FileVersion | None) -> RangeSource:
    system, path = filesystem(url)
    if not is_s3(url):
        return PyArrowSource(system, path)
    from pipeline.storage.s3_object import S3Source

    return S3Source(path, listed)
