"""How busy the GPU is: the share of time in which a kernel ran, as NVML counts it."""

from __future__ import annotations

import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from types import TracebackType

import torch

EVERY_S = 0.2


class Utilization:
    """Samples it in a thread while the block runs.

    Args:
        device: one that is not cuda has none.
    """

    def __init__(self, device: torch.device) -> None:
        self._probe = _probe() if device.type == "cuda" else None
        self._samples: list[tuple[float, float]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Utilization:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while self._probe and not self._over.wait(EVERY_S):
            self._samples.append((time.time(), self._probe()))

    def mean(self, start: float, stop: float) -> float | None:
        """Percent, of the samples taken between two readings of `time.time()`; None where there are none."""
        between = [percent for when, percent in self._samples if start <= when <= stop]
        return statistics.fmean(between) if between else None


def _probe() -> Callable[[], float] | None:
    """A way to ask that works here: the NVML binding that torch uses, else the program."""
    for probe in (_asked_of_the_binding, _asked_of_the_program):
        try:
            probe()
        except Exception:  # noqa: BLE001 - the binding is missing, or has no driver or rights: without, then
            continue
        return probe
    return None


def _asked_of_the_binding() -> float:
    """Percent, by nvidia-ml-py."""
    return float(torch.cuda.utilization())


def _asked_of_the_program() -> float:
    """Percent of the first GPU."""
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5)
    return float(done.stdout.split()[0])
