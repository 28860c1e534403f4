"""S3 as a pyarrow filesystem, by boto3: for listing, deleting, and for libraries that need such a filesystem."""

from __future__ import annotations

import contextlib
import errno
import io
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, cast

import pyarrow as pa
import pyarrow.fs as pafs

from pipeline.storage import s3_client
from pipeline.storage.remote_file import RemoteFile
from pipeline.storage.s3_object import S3Source

DELETED_AT_ONCE = 16
SPOOLED_BYTES = 16 << 20


class S3Handler(pafs.FileSystemHandler):  # type: ignore[misc]
    """The filesystem interface of `pyarrow.fs.PyFileSystem`.

    A folder exists as long as an object is below it. Times are whole seconds, as in responses to HEAD, so that they
    are equal for named and listed objects.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, S3Handler)

    def __hash__(self) -> int:
        return hash(S3Handler)

    def get_type_name(self) -> str:
        """Returns the name of the filesystem."""
        return "s3"

    def normalize_path(self, path: str) -> str:
        """Returns a key unchanged."""
        return path

    def get_file_info(self, paths: list[str]) -> list[pafs.FileInfo]:
        """Returns the file information of each path."""
        return [_look_up(path) for path in paths]

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        """Returns the files in a folder, or below it."""
        base = selector.base_dir.rstrip("/")
        bucket, _ = s3_client.split_path(base)
        found, names = [], set()
        for entry in s3_client.list_objects(base, recursive=selector.recursive):
            path = f"{bucket}/{entry.get('Key', entry.get('Prefix'))}"
            if path.endswith("/"):  # a folder, or the placeholder object of one
                names.add(path.rstrip("/"))
            else:
                found.append(_file(path, entry["Size"], entry["LastModified"]))
        folders = [pafs.FileInfo(name, pafs.FileType.Directory) for name in sorted(names - {base})]
        if not found and not names and not selector.allow_not_found:
            raise FileNotFoundError(errno.ENOENT, f"{base}: there is no such folder")
        return found + folders

    def create_dir(self, path: str, recursive: bool) -> None:
        """Does nothing: a folder exists once an object is in it."""

    def delete_file(self, path: str) -> None:
        """Deletes an object, whether or not it exists."""
        with contextlib.suppress(FileNotFoundError):
            s3_client.request_with_retries("delete_object", path)

    def delete_dir(self, path: str) -> None:
        """Deletes all objects below a folder."""
        self.delete_dir_contents(path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = True) -> None:
        """Deletes all objects below a folder."""
        bucket, _ = s3_client.split_path(path)
        keys = [entry["Key"] for entry in s3_client.list_objects(path.rstrip("/"), recursive=True)]
        with ThreadPoolExecutor(DELETED_AT_ONCE) as pool:  # DeleteObjects needs checksums that vary
            list(pool.map(lambda key: self.delete_file(f"{bucket}/{key}"), keys))

    def delete_root_dir_contents(self) -> None:
        """Raises PermissionError."""
        raise PermissionError(errno.EPERM, "all buckets at once are not deleted")

    def move(self, src: str, dest: str) -> None:
        """Copies an object, then deletes the original."""
        self.copy_file(src, dest)
        self.delete_file(src)

    def copy_file(self, src: str, dest: str) -> None:
        """Copies an object within the store."""
        bucket, key = s3_client.split_path(src)
        s3_client.request_with_retries("copy_object", dest, CopySource={"Bucket": bucket, "Key": key})

    def open_input_stream(self, path: str) -> pa.NativeFile:
        """Opens an object for sequential reading."""
        return self.open_input_file(path)

    def open_input_file(self, path: str) -> pa.NativeFile:
        """Opens an object for random access."""
        source = S3Source(path)
        source.size()  # pyarrow expects an error for a missing file here
        return pa.PythonFile(io.BufferedReader(RemoteFile(source)), mode="r")

    def open_output_stream(self, path: str, metadata: dict[str, str] | None) -> pa.NativeFile:
        """Opens an object for writing; it appears once the stream is closed."""
        return pa.PythonFile(_ObjectWriter(path), mode="w")

    def open_append_stream(self, path: str, metadata: dict[str, str] | None) -> pa.NativeFile:
        """Raises OSError: objects cannot grow."""
        raise OSError(errno.ENOTSUP, f"{path}: an object cannot be appended to")


class _ObjectWriter(io.RawIOBase):
    """Buffers an object and writes it when it is closed."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path, self._file = path, tempfile.SpooledTemporaryFile(SPOOLED_BYTES)  # noqa: SIM115 - `close` closes it

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._file.write(data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            with self._file:
                s3_client.put(self._path, cast(Any, self._file))


def _look_up(path: str) -> pafs.FileInfo:
    _, key = s3_client.split_path(path := path.rstrip("/"))
    refusal: OSError | None = None
    if key:
        try:
            found = s3_client.head(path)
            return _file(path, found["ContentLength"], found["LastModified"])
        except FileNotFoundError:
            pass
        except PermissionError as error:  # a folder may be listable although HEAD is forbidden
            refusal = error
    for _ in s3_client.list_objects(path, recursive=True, limit=1):
        return pafs.FileInfo(path, pafs.FileType.Directory)
    if refusal:
        raise refusal
    return pafs.FileInfo(path, pafs.FileType.Directory if not key else pafs.FileType.NotFound)


def _file(path: str, size: int, modified: datetime) -> pafs.FileInfo:
    return pafs.FileInfo(path, pafs.FileType.File, size=size, mtime_ns=int(modified.timestamp()) * 1_000_000_000)
