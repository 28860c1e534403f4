"""Reads an S3 object and checks that all bytes are complete, of the requested range and of the same object."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any

import urllib3
from botocore.exceptions import BotoCoreError

from pipeline.errors import ChangedError
from pipeline.storage import s3_client
from pipeline.storage.remote_file import FileVersion

PIECE_BYTES = 1 << 20
"""Bytes read from a connection at a time, which are lost if it breaks."""
CLOCK_TOLERANCE_S = 2
"""Tolerance in seconds between the times of a listing and a response: stores round them up or down."""
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass(frozen=True)
class _ObjectInfo:
    """The description of an object in a response."""

    size: int
    etag: str
    modified_s: float | None

    @classmethod
    def of(cls, answer: dict[str, Any], size: int) -> _ObjectInfo:
        modified = answer.get("LastModified")
        return cls(size, answer.get("ETag", ""), modified.timestamp() if isinstance(modified, datetime) else None)

    def is_same_object(self, before: _ObjectInfo) -> bool:
        same_time = before.etag or self.modified_s == before.modified_s
        return self.size == before.size and self.etag == before.etag and bool(same_time)

    def matches_listing(self, listed: FileVersion) -> bool:
        if self.modified_s is None or not listed.mtime_ns:
            return self.size == listed.size
        return self.size == listed.size and abs(self.modified_s - listed.mtime_ns / 1e9) <= CLOCK_TOLERANCE_S


class S3Source:
    """An object, for `remote_file.RemoteFile`.

    Args:
        path: "bucket/key".
        listed: size and time of change from a listing; None does not check them.

    Every request after the first has the first one's ETag as its condition; if the object was replaced, ChangedError
    is raised.
    """

    def __init__(self, path: str, listed: FileVersion | None = None) -> None:
        self._path, self._listed = path, listed
        self._found: _ObjectInfo | None = None

    def size(self) -> int:
        """Returns the size of the object in bytes."""
        if self._found is None:
            answer = s3_client.head(self._path, attempts=1)
            self._check_object(_ObjectInfo.of(answer, answer["ContentLength"]))
        return self._known().size

    @property
    def etag(self) -> str:
        """ETag of the object; empty if the store has none."""
        return self._known().etag

    def read_into(self, buffer: bytearray, start: int, stop: int) -> None:
        """Appends a range to the buffer, or the bytes of it that arrive before an OSError."""
        if self._found:
            stop = min(stop, self._found.size)
        if start >= stop:
            return
        condition = (
            {"IfMatch": self._found.etag} if self._found and self._found.etag.startswith('"') else {}
        )  # weak ETags start with W/
        try:
            answer = s3_client.request("get_object", self._path, Range=f"bytes={start}-{stop - 1}", **condition)
        except s3_client.PreconditionFailedError as error:
            raise self._changed("it was replaced while it was read") from error
        except s3_client.OutOfRangeError as error:
            self._check_end(start, error)
            return
        with contextlib.closing(answer["Body"]) as body:
            skipped, length = self._described(answer, start, stop)
            expected = len(buffer) + length
            try:
                for piece in _pieces(body, skipped, length):
                    buffer += piece
            except (BotoCoreError, urllib3.exceptions.HTTPError) as error:
                raise s3_client.as_os_error(error, self._path) from error
            if len(buffer) < expected:
                missing = expected - len(buffer)
                raise OSError(errno.EIO, f"{self._path}: {missing} bytes of a range are missing from the answer")

    def disconnect(self) -> None:
        """Does nothing: boto3 does not reuse a broken connection."""

    def _described(self, answer: dict[str, Any], start: int, stop: int) -> tuple[int, int]:
        """Returns the number of bytes in the body before the range, and in the range."""
        status = answer["ResponseMetadata"]["HTTPStatusCode"]
        if status == HTTPStatus.OK:  # the whole object
            self._check_object(_ObjectInfo.of(answer, answer["ContentLength"]))
            return start, max(0, min(stop, self._known().size) - start)
        match = _RANGE.fullmatch(answer.get("ContentRange", ""))
        if status != HTTPStatus.PARTIAL_CONTENT or not match:
            raise OSError(errno.EIO, f"{self._path}: status {status} and no Content-Range answer a range")
        first, last, size = map(int, match.groups())
        self._check_object(_ObjectInfo.of(answer, size))
        if first != start or last >= stop:
            raise OSError(errno.EIO, f"{self._path}: {match[0]} is not the range that was asked for, from {start}")
        return 0, min(stop, size) - start

    def _check_end(self, start: int, error: OSError) -> None:
        """Returns if the object really ends before `start`; otherwise raises OSError or ChangedError."""
        known, self._found = self._found, None
        if self.size() > start and known is None:
            raise OSError(errno.EIO, str(error)) from error  # transient
        if known:
            self._check_object(known)

    def _known(self) -> _ObjectInfo:
        if self._found is None:
            raise OSError(errno.EIO, f"{self._path} has not been looked at")
        return self._found

    def _check_object(self, found: _ObjectInfo) -> None:
        """Checks the description of the object in a response. Raises ChangedError if it was replaced, or OSError."""
        if not self._is_expected(found):
            answer = s3_client.head(self._path, attempts=1)
            if self._is_expected(_ObjectInfo.of(answer, answer["ContentLength"])):
                raise OSError(errno.EIO, f"{self._path}: an answer that describes another object")
            when = "while it was read" if self._found else "after it was listed"
            raise self._changed(f"it was replaced {when}")
        self._found = self._found or found

    def _is_expected(self, found: _ObjectInfo) -> bool:
        return (
            found.is_same_object(self._found)
            if self._found
            else not self._listed or found.matches_listing(self._listed)
        )

    def _changed(self, how: str) -> ChangedError:
        return ChangedError(errno.ESTALE, f"s3://{self._path} is another object than it was: {how}")


def _pieces(body: Any, skipped: int, length: int) -> Iterator[bytes]:
    """Yields `length` bytes of a body after the first `skipped`, or fewer if the body ends early."""
    while skipped and (piece := body.read(min(PIECE_BYTES, skipped))):
        skipped -= len(piece)
    while length and (piece := body.read(min(PIECE_BYTES, length))):
        length -= len(piece)
        yield piece
