"""Sends requests to S3 stores by boto3: one client for all threads of a process, with Python's own exceptions.

Paths are those of pyarrow's S3 filesystem, "bucket/key". This module is imported late, as importing boto3 is slow.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import io
import os
import threading
from collections.abc import Iterator, Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any, BinaryIO

import boto3
import urllib3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    PartialCredentialsError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)

from pipeline.storage.retries import ATTEMPTS, PermanentError, with_retries

CONNECTIONS = 64
"""Maximum number of connections to a store, for all threads of the process."""
S3_ATTEMPTS = 5
"""Attempts of a request by botocore, with pauses of up to 1, 2, 4 and 8 s; our own retries come on top."""
LOOKUP_ATTEMPTS = 3
"""Our own attempts of requests that a user waits for, so that a missing store is reported soon."""
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10, 60
EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"})
_NO_CREDENTIALS = (
    CredentialRetrievalError,
    PartialCredentialsError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
_LOCK = threading.Lock()


class ExpiredCredentialsError(OSError):
    """The credentials have expired. Those of a role or a renewed file are read again."""


class PreconditionFailedError(PermanentError):
    """The condition `If-Match` or `If-None-Match` of a request does not hold."""


class OutOfRangeError(PermanentError):
    """The object ends before the range."""


class UnsupportedError(PermanentError):
    """The store does not support this kind of request."""


_KINDS: Mapping[int, tuple[type[OSError], int]] = {
    HTTPStatus.NOT_FOUND: (FileNotFoundError, errno.ENOENT),
    HTTPStatus.UNAUTHORIZED: (PermissionError, errno.EACCES),
    HTTPStatus.FORBIDDEN: (PermissionError, errno.EACCES),
    HTTPStatus.PRECONDITION_FAILED: (PreconditionFailedError, errno.EEXIST),
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: (OutOfRangeError, errno.EINVAL),
    HTTPStatus.NOT_IMPLEMENTED: (UnsupportedError, errno.ENOTSUP),
}
"""Exception class and errno by HTTP status; other statuses are transient."""


def request(operation: str, path: str, **options: Any) -> dict[str, Any]:
    """Calls an operation of boto3's client for an object or, without a key, for a bucket; returns the response.

    Raises FileNotFoundError, PermissionError, one of the errors above, or another OSError, whose text contains the
    store's error code.
    """
    bucket, key = split_path(path)
    where = {"Bucket": bucket} | ({"Key": key} if key else {})
    used = None
    try:
        used = _client()
        answer: dict[str, Any] = getattr(used, operation)(**where, **options)
    except (ClientError, BotoCoreError, urllib3.exceptions.HTTPError) as error:
        raised = as_os_error(error, path)
        if isinstance(raised, ExpiredCredentialsError):
            _reload_credentials(used)
        raise raised from error
    return answer


def request_with_retries(operation: str, path: str, *, attempts: int = ATTEMPTS, **options: Any) -> dict[str, Any]:
    """Sends a request as `request` does, with retries of transient errors."""
    return with_retries(lambda: request(operation, path, **options), attempts=attempts)


def head(path: str, *, attempts: int = LOOKUP_ATTEMPTS) -> dict[str, Any]:
    """Returns size, ETag and Last-Modified of an object, under boto3's names. Raises as `request` does."""

    def once() -> dict[str, Any]:
        try:
            return request("head_object", path)
        except FileNotFoundError:
            raise
        except OSError:  # HEAD has no body, so it does not give the reason; GET does
            answer = request("get_object", path, Range="bytes=0-0")
            answer["Body"].close()
            size = answer.get("ContentRange", "").rpartition("/")[2]
            if not size.isdecimal():
                raise
            return answer | {"ContentLength": int(size)}

    return with_retries(once, attempts=attempts)


def list_objects(path: str, *, recursive: bool, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """Yields the objects below a folder with Key, Size, LastModified; without `recursive` also folders, as "Prefix"."""
    bucket, key = split_path(path)
    options: dict[str, Any] = {"Prefix": f"{key}/" if key else ""}
    options |= {} if recursive else {"Delimiter": "/"}
    options |= {"MaxKeys": limit} if limit else {}
    while True:
        page = request_with_retries("list_objects_v2", bucket, attempts=LOOKUP_ATTEMPTS, **options)
        yield from page.get("Contents", [])
        yield from page.get("CommonPrefixes", [])
        if limit or not page.get("IsTruncated"):
            return
        options["ContinuationToken"] = page["NextContinuationToken"]


def keys_below(path: str) -> Iterator[str]:
    """Yields bucket and key of the objects below a folder by the older listing of S3, for `verify`."""
    bucket, key = split_path(path)
    prefix, marker, is_truncated = f"{key}/" if key else "", "", True
    while is_truncated:
        page = request_with_retries("list_objects", bucket, attempts=LOOKUP_ATTEMPTS, Prefix=prefix, Marker=marker)
        for entry in page.get("Contents", []):
            marker = entry["Key"]
            yield f"{bucket}/{marker}"
        is_truncated = page.get("IsTruncated", False) and bool(page.get("Contents"))


def put(path: str, data: bytes | BinaryIO, **conditions: str) -> str:
    """Writes an object atomically by one request; returns its ETag.

    Args:
        data: the contents, or a file, which is written from its start.
        conditions: `IfMatch` or `IfNoneMatch`.

    Raises as `request` does.
    """
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    file.seek(0)
    digest = base64.b64encode(hashlib.file_digest(file, _md5).digest()).decode()  # type: ignore[arg-type]

    def once() -> dict[str, Any]:
        file.seek(0)
        return request("put_object", path, Body=file, ContentMD5=digest, **conditions)

    return str(with_retries(once).get("ETag", ""))


def _md5() -> Any:
    return hashlib.md5(usedforsecurity=False)  # a checksum of the transfer, for the header Content-MD5


def split_path(path: str) -> tuple[str, str]:
    """Splits a path into bucket and key. Raises FileNotFoundError for a name that is not UTF-8."""
    with contextlib.suppress(UnicodeEncodeError):
        path.encode()
        bucket, _, key = path.partition("/")
        return bucket, key
    raise FileNotFoundError(errno.ENOENT, "keys are UTF-8, and this name is not", path)


def as_os_error(error: Exception, path: str) -> OSError:
    """Converts an exception of botocore to an OSError."""
    if isinstance(error, ClientError):
        return _of_answer(error, path)
    if isinstance(error, _NO_CREDENTIALS):
        return PermissionError(errno.EACCES, f"{path}: {error}")
    return OSError(errno.EIO, f"{path}: {error}")


def _of_answer(error: ClientError, path: str) -> OSError:
    answer = error.response.get("Error", {})
    code, text = str(answer.get("Code", "")), str(answer.get("Message") or "").rstrip(".")
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    message = f"{path}: the store answers {code}" + (f", {text}" if text and text != code else "")
    if code in EXPIRED:
        return ExpiredCredentialsError(errno.EACCES, f"{message}; the credentials have expired: renew them")
    if code in ("InvalidToken", "InvalidAccessKeyId"):
        status = HTTPStatus.FORBIDDEN
    kind, number = _KINDS.get(status, (OSError, errno.EIO))
    return kind(number, message)


def _client() -> Any:
    """Returns the process's client for the store of the environment."""
    aws = tuple((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))
    with _LOCK:  # creating a client is slow: other threads wait for it
        return _connected(aws)


@lru_cache(maxsize=8)
def _connected(aws: tuple[tuple[str, str], ...]) -> Any:
    """Creates a client, with settings that botocore does not read from the environment, or reads differently."""
    named = dict(aws)
    session = boto3.Session(region_name=named.get("AWS_REGION") or named.get("AWS_DEFAULT_REGION"))
    checksums = named.get("AWS_REQUEST_CHECKSUM_CALCULATION") or "when_required"  # others reject those of 2025
    config = Config(
        signature_version=None if session.get_credentials() else UNSIGNED,
        retries={"mode": "standard", "total_max_attempts": S3_ATTEMPTS},
        max_pool_connections=CONNECTIONS,
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        tcp_keepalive=True,
        user_agent="shardtalk",  # botocore's own costs an eighth of a request's time
        request_checksum_calculation=checksums,
        response_checksum_validation=named.get("AWS_RESPONSE_CHECKSUM_VALIDATION") or "when_required",
    )
    return session.client("s3", config=config)


def _reload_credentials(used: Any) -> None:
    """Makes the next request read the credentials again, unless another thread already did."""
    if used is not None and _client() is used:
        with _LOCK:
            _connected.cache_clear()


def _begin_in_child() -> None:
    """Resets a forked process, which must not share its parent's connections or locks."""
    global _LOCK  # noqa: PLW0603
    _LOCK = threading.Lock()
    _connected.cache_clear()


os.register_at_fork(after_in_child=_begin_in_child)
