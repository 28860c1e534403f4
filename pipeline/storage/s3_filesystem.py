"""S3 as a filesystem of pyarrow's, by boto3: for listing, deleting, and for libraries that take such filesystems."""

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
    """What `pyarrow.fs.PyFileSystem` asks of a filesystem.

    A folder is there as long as something is below it. Times are whole seconds, as answers to HEAD have them, so that
    an object has the same whether it is named or listed.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, S3Handler)

    def __hash__(self) -> int:
        return hash(S3Handler)

    def get_type_name(self) -> str:
        """Its name."""
        return "s3"

    def normalize_path(self, path: str) -> str:
        """A key is taken as it is."""
        return path

    def get_file_info(self, paths: list[str]) -> list[pafs.FileInfo]:
        """What each of them is."""
        return [_look_up(path) for path in paths]

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        """What is in a folder, or below it."""
        base = selector.base_dir.rstrip("/")
        bucket, _ = s3_client.split_path(base)
        found, names = [], set()
        for entry in s3_client.list_objects(base, recursive=selector.recursive):
            path = f"{bucket}/{entry.get('Key', entry.get('Prefix'))}"
            if path.endswith("/"):  # a folder, or what consoles put for one
                names.add(path.rstrip("/"))
            else:
                found.append(_file(path, entry["Size"], entry["LastModified"]))
        folders = [pafs.FileInfo(name, pafs.FileType.Directory) for name in sorted(names - {base})]
        if not found and not names and not selector.allow_not_found:
            raise FileNotFoundError(errno.ENOENT, f"{base}: there is no such folder")
        return found + folders

    def create_dir(self, path: str, recursive: bool) -> None:
        """It is there once something is in it."""

    def delete_file(self, path: str) -> None:
        """Deletes an object. Whether it was there, not every store says."""
        with contextlib.suppress(FileNotFoundError):
            s3_client.request_with_retries("delete_object", path)

    def delete_dir(self, path: str) -> None:
        """Deletes all that is below it."""
        self.delete_dir_contents(path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = True) -> None:
        """Deletes all that is below it."""
        bucket, _ = s3_client.split_path(path)
        keys = [entry["Key"] for entry in s3_client.list_objects(path.rstrip("/"), recursive=True)]
        with ThreadPoolExecutor(DELETED_AT_ONCE) as pool:  # one request for all would need a checksum, or another
            list(pool.map(lambda key: self.delete_file(f"{bucket}/{key}"), keys))

    def delete_root_dir_contents(self) -> None:
        """Never."""
        raise PermissionError(errno.EPERM, "all buckets at once are not deleted")

    def move(self, src: str, dest: str) -> None:
        """Copies, then deletes."""
        self.copy_file(src, dest)
        self.delete_file(src)

    def copy_file(self, src: str, dest: str) -> None:
        """Copies an object within the store."""
        bucket, key = s3_client.split_path(src)
        s3_client.request_with_retries("copy_object", dest, CopySource={"Bucket": bucket, "Key": key})

    def open_input_stream(self, path: str) -> pa.NativeFile:
        """For reading front to back."""
        return self.open_input_file(path)

    def open_input_file(self, path: str) -> pa.NativeFile:
        """For reading anywhere."""
        source = S3Source(path)
        source.size()  # pyarrow expects to hear of what is not there now
        return pa.PythonFile(io.BufferedReader(RemoteFile(source)), mode="r")

    def open_output_stream(self, path: str, metadata: dict[str, str] | None) -> pa.NativeFile:
        """The object is there once the stream is closed."""
        return pa.PythonFile(_ObjectWriter(path), mode="w")

    def open_append_stream(self, path: str, metadata: dict[str, str] | None) -> pa.NativeFile:
        """Never: objects do not grow."""
        raise OSError(errno.ENOTSUP, f"{path}: an object cannot be appended to")


class _ObjectWriter(io.RawIOBase):
    """Waits for all of an object."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path, self._file = path, tempfile.SpooledTemporaryFile(SPOOLED_BYTES)  # noqa: SIM115 - closed with it

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
        except PermissionError as error:  # a folder may be listed whose name may not be asked for
            refusal = error
    for _ in s3_client.list_objects(path, recursive=True, limit=1):
        return pafs.FileInfo(path, pafs.FileType.Directory)
    if refusal:
        raise refusal
    return pafs.FileInfo(path, pafs.FileType.Directory if not key else pafs.FileType.NotFound)


def _file(path: str, size: int, modified: datetime) -> pafs.FileInfo:
    return pafs.FileInfo(path, pafs.FileType.File, size=size, mtime_ns=int(modified.timestamp()) * 1_000_000_000)
