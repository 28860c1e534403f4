"""Files on any filesystem that pyarrow knows, and writing them so that a reader sees the old or the new state only."""

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
"""Read at a time, here and remotely, where little of a file is wanted: there, a round trip takes as long as 1 MiB."""
CONNECTIONS = 24
"""Requests to a store at a time, where there are many small ones."""


def is_remote(url: str) -> bool:
    """Whether `url` names its filesystem, as in "s3://bucket/key"; otherwise it is a path of this machine."""
    return "://" in url


def is_s3(url: str) -> bool:
    """Whether `url` names an object of an S3 store, or a folder of them."""
    return url.startswith("s3://")


def filesystem(url: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem of a URL and the path in it. Raises InputError for one that cannot be reached.

    The path is taken as it is: in "s3://bucket/50%.jpg" nothing is quoted.
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
    """A filesystem, one for all files on it so that connections are used again, and what its paths begin with."""
    if scheme == "s3":
        from pipeline.storage.s3_filesystem import S3Handler

        return pafs.PyFileSystem(S3Handler()), host
    try:
        return other_stores.connect(scheme, host)
    except (OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"{scheme}://{host} cannot be opened: {error}") from error


def open_at(url: str, offset: int = 0, *, skim: bool = False, listed: FileVersion | None = None) -> BinaryIO:
    """A file for reading, from a byte offset on. Local paths need not be UTF-8.

    Opening or reading raises OSError; ChangedError where an object of S3 is not what was listed, or is replaced while
    it is read.

    Args:
        skim: only small parts of it will be read.
        listed: what a listing said of it.
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
