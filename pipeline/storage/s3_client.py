"""Requests to an S3 store by boto3: one client for all threads of a process, and its errors as Python's own.

A path is that of pyarrow's S3 filesystem: "bucket/key". Imported late: boto3 takes its time.
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

from pipeline.storage.remote_file import ATTEMPTS, PermanentError, with_retries

CONNECTIONS = 64
"""Kept to a store, by all threads of the process."""
S3_ATTEMPTS = 5
"""Of a request, by botocore, with pauses of up to 1, 2, 4 and 8 s; our own come on top."""
LOOKUP_ATTEMPTS = 3
"""Of our own, of requests that a person waits for: a store that does not exist should be named soon."""
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
    """The credentials were good once. Those of a role or of a file that somebody renews are read again."""


class PreconditionFailedError(PermanentError):
    """A condition of the request does not hold: `If-Match` or `If-None-Match`."""


class OutOfRangeError(PermanentError):
    """The object ends before the range."""


class UnsupportedError(PermanentError):
    """The store does not know this kind of request."""


_KINDS: Mapping[int, tuple[type[OSError], int]] = {
    HTTPStatus.NOT_FOUND: (FileNotFoundError, errno.ENOENT),
    HTTPStatus.UNAUTHORIZED: (PermissionError, errno.EACCES),
    HTTPStatus.FORBIDDEN: (PermissionError, errno.EACCES),
    HTTPStatus.PRECONDITION_FAILED: (PreconditionFailedError, errno.EEXIST),
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: (OutOfRangeError, errno.EINVAL),
    HTTPStatus.NOT_IMPLEMENTED: (UnsupportedError, errno.ENOTSUP),
}
"""Error and number of a status; others may pass."""


def request(operation: str, path: str, **options: Any) -> dict[str, Any]:
    """The answer of a store to `operation` of boto3's client, of an object or, without a key, of a bucket.

    Raises FileNotFoundError, PermissionError, one of the errors above, or another OSError. Its text has the code of the
    store's answer.
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
    """As `request`, made again where that may help."""
    return with_retries(lambda: request(operation, path, **options), attempts=attempts)


def head(path: str, *, attempts: int = LOOKUP_ATTEMPTS) -> dict[str, Any]:
    """Size, ETag and Last-Modified of an object, under boto3's names. Raises as `request` does."""

    def once() -> dict[str, Any]:
        try:
            return request("head_object", path)
        except FileNotFoundError:
            raise
        except OSError:  # an answer without a body, so it does not say why: that of a GET does
            answer = request("get_object", path, Range="bytes=0-0")
            answer["Body"].close()
            size = answer.get("ContentRange", "").rpartition("/")[2]
            if not size.isdecimal():
                raise
            return answer | {"ContentLength": int(size)}

    return with_retries(once, attempts=attempts)


def list_objects(path: str, *, recursive: bool, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """What is below a folder, page by page: objects with Key, Size, LastModified; without `recursive` also "Prefix"."""
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
    """Bucket and key of what is below a folder, by botocore's own pages of the older listing: for `verify`."""
    bucket, key = split_path(path)
    pages = _client().get_paginator("list_objects").paginate(Bucket=bucket, Prefix=f"{key}/" if key else "")
    try:
        yield from (f"{bucket}/{entry['Key']}" for page in pages for entry in page.get("Contents", []))
    except (BotoCoreError, ClientError) as error:
        raise as_os_error(error, path) from error


def put(path: str, data: bytes | BinaryIO, **conditions: str) -> str:
    """Writes an object by one request, so that readers see all of it or the old one; returns its ETag.

    Args:
        data: with a file, from its start to its end.
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
    return hashlib.md5(usedforsecurity=False)  # of the transfer; the header wants this one


def split_path(path: str) -> tuple[str, str]:
    """Bucket and key. Raises FileNotFoundError for a name that no store can have."""
    with contextlib.suppress(UnicodeEncodeError):
        path.encode()
        bucket, _, key = path.partition("/")
        return bucket, key
    raise FileNotFoundError(errno.ENOENT, "keys are UTF-8, and this name is not", path)


def as_os_error(error: Exception, path: str) -> OSError:
    """An error of botocore's, by what can be done about it."""
    if isinstance(error, ClientError):
        return _of_answer(error, path)
    if isinstance(error, _NO_CREDENTIALS):
        return PermissionError(errno.EACCES, f"{path}: {error}")
    return OSError(errno.EIO, f"{path}: {error}")


def _of_answer(error: ClientError, path: str) -> OSError:
    told = error.response.get("Error", {})
    code, said = str(told.get("Code", "")), str(told.get("Message") or "").rstrip(".")
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    message = f"{path}: the store answers {code}" + (f", {said}" if said and said != code else "")
    if code in EXPIRED:
        return ExpiredCredentialsError(errno.EACCES, f"{message}; the credentials have expired: renew them")
    if code in ("InvalidToken", "InvalidAccessKeyId"):
        status = HTTPStatus.FORBIDDEN
    kind, number = _KINDS.get(status, (OSError, errno.EIO))
    return kind(number, message)


def _client() -> Any:
    """The process's client of the store that the environment names."""
    aws = tuple((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))
    with _LOCK:  # making one takes its time: threads wait for the first's
        return _connected(aws)


@lru_cache(maxsize=8)
def _connected(aws: tuple[tuple[str, str], ...]) -> Any:
    """A client, with what botocore does not take from the environment by itself, or takes otherwise than we do."""
    named = dict(aws)
    session = boto3.Session(region_name=named.get("AWS_REGION") or named.get("AWS_DEFAULT_REGION"))
    checksums = named.get("AWS_REQUEST_CHECKSUM_CALCULATION") or "when_required"  # others refuse those of 2025
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
    """Has credentials looked up again by the next request, unless another thread has seen to that."""
    if used is not None and _client() is used:
        with _LOCK:
            _connected.cache_clear()


def _begin_in_child() -> None:
    """A forked process must not share its parent's connections, nor a lock that some thread of it holds."""
    global _LOCK  # noqa: PLW0603
    _LOCK = threading.Lock()
    _connected.cache_clear()


os.register_at_fork(after_in_child=_begin_in_child)
