"""GPU utilisation: the share of time in which a kernel ran, as NVML counts it."""

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
    """Samples GPU utilisation in a thread while its block runs.

    Args:
        device: sampled only if it is cuda.
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
        """Returns the mean in percent between two times of `time.time()`; None without samples."""
        between = [percent for when, percent in self._samples if start <= when <= stop]
        return statistics.fmean(between) if between else None


def _probe() -> Callable[[], float] | None:
    """Returns a working probe: the NVML binding that torch uses, else nvidia-smi; None if neither works."""
    for probe in (_by_nvml, _by_nvidia_smi):
        try:
            probe()
        except Exception:  # noqa: BLE001 - binding or driver is missing, or not permitted
            continue
        return probe
    return None


def _by_nvml() -> float:
    """Returns percent by nvidia-ml-py."""
    return float(torch.cuda.utilization())


def _by_nvidia_smi() -> float:
    """Returns percent of the first GPU by nvidia-smi."""
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5)
    return float(done.stdout.split()[0])
