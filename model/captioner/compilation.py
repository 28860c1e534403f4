"""When a captioner's CNN is compiled: in a job that is long, once it has been long."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from configs.captioning import CompileCnn
from model.errors import OptionError

log = logging.getLogger("shardtalk.model")

COMPILE_AFTER_S = 240.0
"""Seconds of a GPU's time that a CNN takes before it is compiled.

Compiling takes about a minute and saves about a quarter of the time after it. In four minutes a compiled CNN would have
saved what it costs; so a job of whatever length, which is not known here, loses at most a minute by compiling, and at
most a minute by having waited for it.
"""


class Compilation:
    """Decides when a CNN is compiled.

    Args:
        when: "always" at once, "never", or "auto": on a GPU, after minutes of its work.
        device: that of the CNN. On a CPU, "auto" never compiles: a frozen CNN is as fast there.
    """

    def __init__(self, when: CompileCnn, device: torch.device) -> None:
        self.when: CompileCnn = when
        self._is_pending = when == "always" or (when == "auto" and device.type == "cuda")
        self._seconds = 0.0

    def count(self, seconds: float) -> None:
        """Adds time in which the CNN computed."""
        self._seconds += seconds

    def run_when_due(self, compile_cnn: Callable[[], None]) -> None:
        """Compiles the CNN if it is time. Raises OptionError if that fails and the user asked for it."""
        if not self._is_pending or (self.when == "auto" and self._seconds < COMPILE_AFTER_S):
            return
        self._is_pending = False
        try:
            compile_cnn()
        except OptionError as error:
            if self.when == "always":
                raise
            log.warning(f"{error}; the CNN runs as it is")
