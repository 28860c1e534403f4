"""The context of a row: its device, scale, time limit and the file for its findings.

`python -m benchmarks.gpu.bench MODULE:FUNCTION …` runs a row.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.results import Status
from model.device import choose_dtype

ROUNDS = 3
SPARE_S = 5.0
"""Seconds before the deadline in which a process should end by itself."""


class Bench:
    """The context of one row.

    Args:
        device: "cuda" or "cpu".
        scale: factor of the numbers of images, of batch sizes and of seconds.
        scratch: folder for inputs and outputs, shared by all rows.
        limit_s: seconds after which the process is stopped.
        findings: file for findings, a JSON object per line.
    """

    def __init__(self, device: str, scale: float, scratch: Path, limit_s: float, findings: Path) -> None:
        self.device, self.scale, self.scratch = torch.device(device), scale, scratch
        self.dtype = choose_dtype("auto", self.device)
        self.cores = len(os.sched_getaffinity(0))
        self._ends, self._findings = time.monotonic() + limit_s, findings

    @property
    def left_s(self) -> float:
        """Seconds until the row should end."""
        return self._ends - time.monotonic() - SPARE_S

    def scaled(self, count: int, *, least: int = 1) -> int:
        """Returns `scale` × `count`, rounded, at least `least`."""
        return max(least, round(count * self.scale))

    def figure(self, name: str, value: float, unit: str) -> None:
        """Records a measured value."""
        self._record(name=name, value=float(value), unit=unit)

    def note(self, text: str, status: Status = "measured") -> None:
        """Records a note, and the status of the row."""
        self._record(note=text, status=status)

    def _record(self, **finding: Any) -> None:
        with self._findings.open("a", encoding="utf-8") as file:
            file.write(json.dumps(finding, ensure_ascii=False) + "\n")

    def attempt(self, measures: Mapping[str, Callable[[], object]]) -> None:
        """Runs measurements in order while there is time for one as long as the longest so far.

        Notes those that fail, run out of memory, or are skipped.
        """
        longest_s, waiting = 0.0, list(measures)
        while waiting and self.left_s > longest_s:
            began = time.monotonic()
            self._attempt(waiting[0], measures[waiting.pop(0)])
            longest_s = max(longest_s, time.monotonic() - began)
        if waiting:
            self.note(f"no time was left for {'; '.join(waiting)}", "incomplete")

    def _attempt(self, name: str, measure: Callable[[], object]) -> None:
        try:
            measure()
        except torch.OutOfMemoryError:
            self.note(f"{name}: out of memory")
        except RuntimeError as error:
            traceback.print_exc()
            self.note(f"{name}: {str(error).strip().partition(chr(10))[0]}", "failed")
        torch.cuda.empty_cache()

    def synchronize(self) -> None:
        """Waits for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def step_s(self, step: Callable[[], object], *, seconds: float) -> float:
        """Returns seconds per step: the median of three rounds that take `scale` × `seconds` together, after two steps.

        If one step takes that long, the second step counts.
        """
        self._seconds(step, 1)
        one_s = self._seconds(step, 1)
        steps = int(min(1.0, self.scale) * seconds / ROUNDS / one_s)
        return statistics.median(self._seconds(step, steps) for _ in range(ROUNDS)) if steps else one_s

    def _seconds(self, step: Callable[[], object], steps: int) -> float:
        self.synchronize()
        began = time.perf_counter()
        for _ in range(steps):
            step()
        self.synchronize()
        return (time.perf_counter() - began) / steps


def main() -> None:
    """Runs a row."""
    parser = argparse.ArgumentParser()
    parser.add_argument("measure")
    parser.add_argument("--device", required=True)
    parser.add_argument("--scale", type=float, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--limit_s", type=float, required=True)
    parser.add_argument("--findings", type=Path, required=True)
    options = vars(parser.parse_args())
    module, _, function = options.pop("measure").partition(":")
    getattr(import_module(module), function)(Bench(**options))


if __name__ == "__main__":
    main()
