"""Downloads images by HTTP and HTTPS with retries and limits on time, size and redirects. Thread-safe."""

from __future__ import annotations

import http.client
import random
import ssl
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from pipeline.errors import DataError
from pipeline.read_options import MAX_IMAGE_BYTES, check_size
from pipeline.schema import ErrorCode

if TYPE_CHECKING:
    import urllib3

CONNECT_S, READ_S = 10.0, 30.0
"""Timeouts in seconds for connecting, and between two received pieces."""
DEADLINE_S = 300.0
"""Maximum duration of one attempt: a slow server must not occupy a thread forever."""
ATTEMPTS = 4
"""Attempts to download an image; the stores' number is in `pipeline.storage.retries`."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
"""Pauses between attempts: doubled each time, with jitter from the upper half."""
LONGEST_WAIT_S = 60.0
"""Maximum pause that a server may request by `Retry-After`; a longer one is a failure."""
REDIRECTS = 5
CONNECTIONS = 32
"""Number of connections to a host, and of concurrent downloads."""
PIECE_BYTES = 64 << 10
_TRANSIENT = frozenset([408, 425, 429, 500, 502, 503, 504])
_OK = 200


class _TransientError(Exception):
    """A transient failure, after which the request is repeated."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


def is_web(url: str) -> bool:
    """Returns whether a URL is of HTTP or HTTPS."""
    return url.lower().startswith(("http://", "https://"))


def get(url: str, max_bytes: int = MAX_IMAGE_BYTES) -> bytes:
    """Downloads an image.

    Raises DataError: `too_large` for more than `max_bytes` bytes, `unreadable` for all other failures.
    """
    pause = FIRST_PAUSE_S
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _attempt(url, max_bytes)
        except _TransientError as error:
            if attempt == ATTEMPTS or (error.wait_s or 0) > LONGEST_WAIT_S:
                raise DataError(ErrorCode.UNREADABLE, f"{error}, after {attempt} attempts") from error
            time.sleep(pause * random.uniform(0.5, 1.0) if error.wait_s is None else error.wait_s)
            pause = min(2 * pause, LONGEST_PAUSE_S)
    raise AssertionError("the last attempt returns or raises")


def _attempt(url: str, max_bytes: int) -> bytes:
    from urllib3 import Retry, exceptions

    once = Retry(total=None, connect=0, read=0, status=0, other=0, redirect=REDIRECTS, respect_retry_after_header=False)
    try:
        pool = _pool(_proxy(url))
        response = pool.request("GET", url, retries=once, preload_content=False)
        try:
            return _body(response, max_bytes)
        finally:
            response.release_conn() if response.closed else response.close()
    except (exceptions.URLSchemeUnknown, exceptions.LocationValueError) as error:
        raise DataError(ErrorCode.UNREADABLE, f"not a URL of http or https, or redirected to none: {error}") from error
    except exceptions.MaxRetryError as error:
        if isinstance(error.reason, exceptions.ResponseError):
            raise DataError(ErrorCode.UNREADABLE, f"redirected more than {REDIRECTS} times") from error
        raise _TransientError(str(error.reason or error)) from error
    except exceptions.SSLError as error:
        raise DataError(ErrorCode.UNREADABLE, str(error)) from error
    except (exceptions.HTTPError, http.client.HTTPException, OSError) as error:
        raise _TransientError(f"{type(error).__name__}: {error}") from error
    except ValueError as error:  # from parsing the URL or headers
        raise DataError(ErrorCode.UNREADABLE, f"{type(error).__name__}: {error}") from error


def _body(response: urllib3.BaseHTTPResponse, max_bytes: int) -> bytes:
    if response.status in _TRANSIENT:
        raise _TransientError(f"HTTP status {response.status}", _retry_after(response.headers.get("Retry-After", "")))
    if response.status != _OK:
        raise DataError(ErrorCode.UNREADABLE, f"HTTP status {response.status}")
    announced = response.headers.get("Content-Length", "")
    if announced.isdecimal():
        check_size(int(announced), max_bytes)
    deadline, pieces, received = time.monotonic() + DEADLINE_S, [], 0
    for piece in response.stream(PIECE_BYTES, decode_content=True):
        received += len(piece)
        if received > max_bytes:
            raise DataError(ErrorCode.TOO_LARGE, f"more bytes than max_image_bytes, which is {max_bytes:,}")
        if time.monotonic() > deadline:
            raise _TransientError(f"the download did not finish within {DEADLINE_S:g} s")
        pieces.append(piece)
    return b"".join(pieces)


def _retry_after(header: str) -> float | None:
    """Returns the pause in seconds that a server requests; None if there is none, or a date."""
    return float(header) if header.isdecimal() else None


def _proxy(url: str) -> str:
    """Returns the proxy for a URL from the environment; empty for none."""
    parts = urlsplit(url)
    return "" if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme, "")


@lru_cache
def _pool(proxy: str) -> urllib3.PoolManager:
    """Returns the connection pool, shared by all threads of this process."""
    import urllib3

    options: dict[str, Any] = {
        "num_pools": 4 * CONNECTIONS,
        "maxsize": CONNECTIONS,
        "timeout": urllib3.Timeout(connect=CONNECT_S, read=READ_S),
        "headers": {"User-Agent": "shardtalk", "Accept-Encoding": "identity"},
        "ssl_context": ssl.create_default_context(),
    }
    return urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)
