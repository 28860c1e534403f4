"""How often and after which pauses a failed request to a store is repeated.

`http_images` has limits of its own for images by HTTP, and `s3_client` says how often botocore itself repeats.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from pipeline.errors import ChangedError

ATTEMPTS = 6
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 8.0
"""Pauses between attempts: doubled each time, with jitter, so that many readers do not return at once."""
Result = TypeVar("Result")
_REFUSALS = ("ACCESS_DENIED", "(HTTP status 403)")
"""Texts of permission errors, for which pyarrow has no exception class."""


class PermanentError(OSError):
    """An error for which a retry is useless."""


_FINAL = (PermanentError, ChangedError, FileNotFoundError, PermissionError, IsADirectoryError)


def with_retries(
    request: Callable[[], Result], *, attempts: int = ATTEMPTS, before_next: Callable[[], object] = lambda: None
) -> Result:
    """Returns the result of a request, which is repeated after a pause if it raises a transient OSError.

    Args:
        request: the request.
        attempts: maximum number of attempts.
        before_next: called after each failure.
    """
    pause = FIRST_PAUSE_S
    for _ in range(attempts - 1):
        try:
            return request()
        except _FINAL:
            raise
        except OSError as error:
            before_next()
            if any(refusal in str(error) for refusal in _REFUSALS):
                raise
        time.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, LONGEST_PAUSE_S)
    return request()
