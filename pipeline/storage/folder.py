"""An output folder on any filesystem, whose files are replaced atomically."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow.fs as pafs

from pipeline.errors import OutputError, WriteError
from pipeline.filenames import is_text, normalize_path, printable
from pipeline.storage.filesystems import filesystem, is_s3, open_at

SPOOLED_BYTES = 16 << 20
"""Maximum size of a remote file buffered in memory while it is written; larger ones are buffered on disk."""
_CANNOT_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF})


def _write_through(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def _link(path: Path, target: Path) -> bool:
    """Creates a hard link; returns False if the filesystem has none, like FUSE and SMB, or if the path exists."""
    try:
        path.hardlink_to(target)
    except OSError:  # creating the file in place then raises the reason
        return False
    return True


def _create_in_place(path: Path, data: bytes) -> None:
    """Creates a file as `Folder.create` does, except that a crash may leave an incomplete file."""
    with path.open("xb") as file:
        try:
            _write_through(file, data)
        except OSError:
            path.unlink()
            raise


def _sync_folder(path: Path) -> None:
    """Flushes the names in a folder to disk, if its filesystem supports it."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(folder)


class Folder:
    """An output folder.

    Args:
        url: a local path, or the URL of a folder on another filesystem.
        writer: the name of this process among those that write into the folder at the same time, so that their
            temporary names differ; empty for the only one.

    Raises OutputError for a name that pyarrow cannot open.
    """

    def __init__(self, url: str, writer: str = "") -> None:
        self.unfinished_end = f"-{writer}.tmp" if writer else ".tmp"
        """The end of the temporary names of this process."""
        if not is_text(url):
            raise OutputError(f"{printable(url)} is not UTF-8; give another name")
        self.url = url = normalize_path(url)
        self.system, self.path = filesystem(url)
        self._local = isinstance(self.system, pafs.LocalFileSystem)

    def below(self, path: str) -> Folder:
        """Returns the folder at a relative path, which need not exist."""
        return Folder(f"{self.url}/{path}".rstrip("/"))

    def names(self, below: str = "") -> list[str]:
        """Returns the sorted names of the files in it, or in a folder below it; empty if there is no such folder."""
        selector = pafs.FileSelector(f"{self.path}/{below}".rstrip("/"), allow_not_found=True)
        found = self.system.get_file_info(selector)
        return sorted(info.base_name for info in found if info.type == pafs.FileType.File)

    def folders(self, below: str) -> list[str]:
        """Returns the sorted names of the folders in a folder below it; empty if there are none."""
        found = self.system.get_file_info(pafs.FileSelector(f"{self.path}/{below}", allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == pafs.FileType.Directory)

    def exists(self, name: str) -> bool:
        """Returns whether it holds a file of this name. Raises OutputError if the store does not answer."""
        try:
            return bool(self.system.get_file_info(f"{self.path}/{name}").type == pafs.FileType.File)
        except OSError as error:
            raise OutputError(f"{self.url} cannot be read: {error}") from error

    def read(self, name: str) -> bytes:
        """Reads a file. Raises OSError."""
        with open_at(f"{self.url}/{name}") as file:
            return file.read()

    def write(self, name: str, data: bytes) -> None:
        """Creates or replaces a file atomically: a reader sees either the old or the new contents.

        Raises WriteError.
        """
        with self.writer(name) as file:
            file.write(data)

    def create(self, name: str, data: bytes) -> bool:
        """Creates a file exclusively; returns False, without creating it, if the filesystem cannot do so.

        Raises FileExistsError if it exists, WriteError.
        """
        if is_s3(self.url):
            from pipeline.storage import s3_conditional_writes

            with self._writing(name, FileExistsError):
                return s3_conditional_writes.create(f"{self.path}/{name}", data)
        if not self._local:
            return False
        path = Path(self.path, name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(f".{path.name}-{uuid.uuid4().hex}{self.unfinished_end}")
            try:
                with unfinished.open("xb") as file:
                    _write_through(file, data)
                is_linked = _link(path, unfinished)
            finally:
                unfinished.unlink(missing_ok=True)
            if not is_linked:
                _create_in_place(path, data)
            try:
                _sync_folder(path.parent)
            except OSError:  # a file whose creation failed must not be found
                path.unlink(missing_ok=True)
                raise
        except FileExistsError:
            raise
        except OSError as error:
            raise WriteError(f"{self.url}/{name} cannot be written: {error.strerror or error}") from error
        return True

    def version(self, name: str) -> str | None:
        """Returns a value that changes whenever the file does; None if there is no file. Raises OSError."""
        try:
            if is_s3(self.url):
                from pipeline.storage import s3_client

                return str(s3_client.head(f"{self.path}/{name}")["ETag"])
            return hashlib.sha256(self.read(name)).hexdigest()
        except FileNotFoundError:
            return None

    def replace(self, name: str, data: bytes, version: str | None) -> None:
        """Replaces a file that still has this version, or creates it if that is None.

        This is atomic on S3 stores with conditional writes, and locally if there was no file; elsewhere the version is
        read before the file is written. Raises FileExistsError if the version differs, WriteError.
        """
        if version is None and self.create(name, data):
            return
        if is_s3(self.url) and version is not None:
            from pipeline.storage import s3_conditional_writes

            with self._writing(name, FileExistsError):
                if s3_conditional_writes.replace(f"{self.path}/{name}", data, version):
                    return
        if self.version(name) != version:
            raise FileExistsError(errno.EEXIST, f"{self.url}/{name} was written by another")
        self.write(name, data)

    @contextlib.contextmanager
    def writer(self, name: str) -> Iterator[BinaryIO]:
        """Writes a file in pieces; it appears once the context ends without an exception."""
        with self._writing(name), self._writer(name) as file:
            yield file

    @contextlib.contextmanager
    def _writing(self, name: str, *passing: type[OSError]) -> Iterator[None]:
        """Turns errors into WriteErrors, except those in `passing`."""
        try:
            yield
        except passing:
            raise
        except OSError as error:
            raise WriteError(f"{self.url}/{name} cannot be written: {error.strerror or error}") from error

    @contextlib.contextmanager
    def _writer(self, name: str) -> Iterator[BinaryIO]:
        target = f"{self.path}/{name}"
        if not self._local:
            with tempfile.SpooledTemporaryFile(SPOOLED_BYTES) as pieces:  # closing a stream publishes the file
                yield cast(BinaryIO, pieces)
                if is_s3(self.url):
                    from pipeline.storage import s3_client

                    s3_client.put(target, cast(BinaryIO, pieces))
                    return
                pieces.seek(0)
                with self.system.open_output_stream(target) as stream:
                    shutil.copyfileobj(pieces, stream, SPOOLED_BYTES)
            return
        path = Path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}{self.unfinished_end}")
        try:
            with unfinished.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)  # makes the rename durable

    def remove(self, name: str) -> None:
        """Deletes a file if it exists: another driver may have been faster. Raises WriteError."""
        with contextlib.suppress(FileNotFoundError), self._writing(name, FileNotFoundError):
            self.system.delete_file(f"{self.path}/{name}")

    def remove_all(self, below: str) -> None:
        """Deletes a folder and its contents if it exists."""
        with contextlib.suppress(FileNotFoundError), self._writing(below, FileNotFoundError):
            self.system.delete_dir(f"{self.path}/{below}")
