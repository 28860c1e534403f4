"""Conditional writes to S3, for stores that support them.

Stores without `If-None-Match` or `If-Match` for PUT reject or, worse, ignore them. Therefore each is tested once per
bucket, by rewriting an existing object on a condition that does not hold: if the write succeeds, the store does not
support the condition.
"""

from __future__ import annotations

import errno
import os

from pipeline.storage import s3_client
from pipeline.storage.remote_file import RemoteFile
from pipeline.storage.s3_object import S3Source

IF_ABSENT = {"IfNoneMatch": "*"}
NEVER_MATCHES = {"IfMatch": f'"{"0" * 32}"'}
"""A condition that holds for no object."""
_SUPPORTED: dict[tuple[str, str, str], bool] = {}
"""Whether a condition is supported, by endpoint, bucket and name of the condition."""


def create(path: str, data: bytes) -> bool:
    """Creates an object exclusively; returns False, without creating it, if the store does not support this.

    Raises FileExistsError if it exists with different contents, and OSError.
    """
    place = _place(path, IF_ABSENT)
    if not _SUPPORTED.get(place, True):
        return False
    if place not in _SUPPORTED and _read(path)[0] is not None:
        raise FileExistsError(errno.EEXIST, f"{path} exists")
    try:
        s3_client.put(path, data, **IF_ABSENT)
    except s3_client.UnsupportedError:
        _SUPPORTED[place] = False
        return False
    except s3_client.PreconditionFailedError as error:
        if _read(path)[0] != data:  # else the response to our own write was lost and the request repeated
            raise FileExistsError(errno.EEXIST, f"{path} exists") from error
    created = False
    try:
        created = _is_refused(path, data, IF_ABSENT)
    finally:
        if not created:
            s3_client.request_with_retries("delete_object", path)
    return created


def replace(path: str, data: bytes, etag: str) -> bool:
    """Replaces the object with this ETag; returns False, without writing, if the store does not support this.

    Raises FileExistsError if the object has another ETag or is missing, and OSError.
    """
    if _place(path, NEVER_MATCHES) not in _SUPPORTED:
        found, its_etag = _read(path)
        if found is None or its_etag != etag:
            raise FileExistsError(errno.EEXIST, f"{path} was written by another")
        _is_refused(path, found, NEVER_MATCHES)
    if not _SUPPORTED[_place(path, NEVER_MATCHES)]:
        return False
    try:
        s3_client.put(path, data, IfMatch=etag)
    except (s3_client.PreconditionFailedError, FileNotFoundError) as error:
        if _read(path)[0] != data:  # else the response to our own write was lost
            raise FileExistsError(errno.EEXIST, f"{path} was written by another") from error
    return True


def _read(path: str) -> tuple[bytes | None, str]:
    """Reads an object and its ETag; None if there is none."""
    source = S3Source(path)
    try:
        with RemoteFile(source) as file:
            return file.readall(), source.etag
    except FileNotFoundError:
        return None, ""


def _is_refused(path: str, data: bytes, condition: dict[str, str]) -> bool:
    """Returns whether the store rejects a write whose condition does not hold; tested once per bucket."""
    place = _place(path, condition)
    if place not in _SUPPORTED:
        try:
            s3_client.put(path, data, **condition)
        except s3_client.PreconditionFailedError:
            _SUPPORTED[place] = True
        except s3_client.UnsupportedError:
            _SUPPORTED[place] = False
        else:
            _SUPPORTED[place] = False
    return _SUPPORTED[place]


def _place(path: str, condition: dict[str, str]) -> tuple[str, str, str]:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    return endpoint, s3_client.split_path(path)[0], next(iter(condition))
