"""Filesystems other than local and S3: pyarrow's own, or else fsspec's if the required package is installed."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib.util import find_spec
from typing import BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

from pipeline.errors import InputError

ANSWER_TIMEOUT_S = 20.0
"""Timeout of a store's first answer: without credentials, clients retry for many minutes."""
_ENDS_THE_PROCESS = frozenset(["abfs", "abfss", "az"])
"""Schemes of Azure, for which fsspec is used: pyarrow's client ends the process if there are no credentials."""
Result = TypeVar("Result")


def connect(scheme: str, host: str) -> tuple[pafs.FileSystem, str]:
    """Returns the filesystem of a scheme and host, and the prefix of its paths. Raises InputError.

    Args:
        scheme: scheme of the URL.
        host: bucket or container, for some schemes with an account.
    """
    return with_timeout(lambda: _opened(scheme, host), f"{scheme}://{host}")


def _opened(scheme: str, host: str) -> tuple[pafs.FileSystem, str]:
    if scheme in ("gs", "gcs"):
        user, _, bucket = host.rpartition("@")
        limit = timedelta(seconds=ANSWER_TIMEOUT_S)
        return pafs.GcsFileSystem(anonymous=user == "anonymous", retry_time_limit=limit), bucket
    if scheme not in _ENDS_THE_PROCESS:
        try:
            system, base = pafs.FileSystem.from_uri(f"{scheme}://{host}/")
            return system, base.rstrip("/")
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            if "nrecognized filesystem" not in str(error):
                raise
    elif not find_spec("adlfs"):
        raise InputError(f"{scheme}://{host} needs a client of Azure's storage: pip install adlfs")
    import fsspec

    found, base = fsspec.core.url_to_fs(f"{scheme}://{host}")
    return pafs.PyFileSystem(_Handler(found)), base.rstrip("/")


class _Handler(pafs.FSSpecHandler):  # type: ignore[misc]
    """Converts the exceptions of fsspec clients to OSError, which callers of pyarrow expect."""

    def get_file_info(self, paths: list[str]) -> list[pafs.FileInfo]:
        """Returns the file information of each path."""
        with _as_os_error():
            return list(super().get_file_info(paths))

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        """Returns the files in a folder, or below it."""
        with _as_os_error():
            return list(super().get_file_info_selector(selector))

    def open_input_file(self, path: str) -> pa.PythonFile:
        """Opens a file for random access."""
        with _as_os_error():
            return pa.PythonFile(_File(self.fs.open(path, mode="rb")), mode="r")


class _File(io.RawIOBase):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def read(self, size: int | None = -1) -> bytes:
        with _as_os_error():
            return self._file.read(-1 if size is None else size)

    def close(self) -> None:
        self._file.close()
        super().close()


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # clients raise exceptions of any kind
        raise OSError(f"{type(error).__name__}: {error}") from error


def with_timeout(ask: Callable[[], Result], url: str) -> Result:
    """Returns the result of the first request to a store.

    Raises InputError if it fails or does not answer in time; then its thread is left running until the process ends.
    """
    answers: list[Result] = []
    failures: list[Exception] = []

    def asking() -> None:
        try:
            answers.append(ask())
        except Exception as error:  # noqa: BLE001 - clients of pyarrow and fsspec raise exceptions of any kind
            failures.append(error)

    thread = threading.Thread(target=asking, daemon=True)
    thread.start()
    thread.join(ANSWER_TIMEOUT_S)
    if answers:
        return answers[0]
    if failures and isinstance(failures[0], InputError):
        raise failures[0]
    if failures:
        reason = " ".join(str(failures[0]).split()) or type(failures[0]).__name__
        raise InputError(f"{url} cannot be opened: {reason}") from failures[0]
    raise InputError(f"{url} did not answer within {ANSWER_TIMEOUT_S:g} s; are there credentials for it?")
