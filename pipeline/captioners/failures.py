"""What a captioner's exceptions become: a message for the row of an image, or the end of a job where all fail."""

from __future__ import annotations

import traceback
from pathlib import Path

from pipeline.errors import CaptionerError

STOP_AFTER = 8
"""Number of images at which a captioner may fail before it has captioned any."""


class DescribedError(Exception):
    """An exception of a captioner in another process; the message is that of `describe`."""


class CaptionerDiedError(DescribedError):
    """A captioner whose process ended at a batch."""


def describe(error: BaseException) -> str:
    """Describes an exception by its class, its message, and the line that raised it."""
    if isinstance(error, DescribedError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"


class FailureLimit:
    """Stops a job whose captioner fails at every image, so that its first failure is read instead of a table of them.

    Args:
        name: the captioner's name.
        stop_after: the number of failures, before the first caption, at which it is given up; 0 for no limit.
    """

    def __init__(self, name: str, stop_after: int = STOP_AFTER) -> None:
        self._name, self._stop_after = name, stop_after
        self._first, self._failures = "", 0

    def captioned(self) -> None:
        """Records that the captioner works."""
        self._stop_after = 0

    def failed(self, message: str) -> None:
        """Records a failure at an image. Raises CaptionerError if there were too many and no caption."""
        self._first, self._failures = self._first or message, self._failures + 1
        if 0 < self._stop_after <= self._failures:
            raise CaptionerError(
                f"captioner {self._name} failed at each of its first {self._failures} images; the first: {self._first}"
            )
