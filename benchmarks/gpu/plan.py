"""The rows by importance, with their estimated cost, and the time limit of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A row: one process with its own measurement."""

    measure: str
    """Module and function, which takes a `Bench`."""
    cost_s: float
    """Seconds on an H100 at scale 1, including the start of the process; an estimate until measured."""
    what: str


ROWS: dict[str, Row] = {  # the most important first
    "tests": Row("benchmarks.gpu.suite:marked", 50, "tests marked cuda: captions, losses and memory against the CPU"),
    "local": Row("benchmarks.gpu.end_to_end:local", 50, "local runner end to end, on tars of 640×480 JPEGs"),
    "cnn": Row("benchmarks.gpu.limits:cnn", 45, "CNN alone, frozen"),
    "decode": Row("benchmarks.gpu.limits:decode", 25, "reading alone; decoding alone by 1, 4 and 16 threads"),
    "search": Row(
        "benchmarks.gpu.limits:search", 25, "search alone, greedy and beam 5: beams removed, fixed shapes, graphs"
    ),
    "finetuning": Row("benchmarks.gpu.training:finetuning", 45, "steps of finetuning ResNet-101 and VGG-16"),
    "self_critical": Row("benchmarks.gpu.training:self_critical", 30, "steps of self-critical training of ResNet-101"),
    "ray": Row("benchmarks.gpu.end_to_end:ray", 60, "Ray runner end to end, on the same tars; needs Ray's wheels"),
    "cnn_compiled": Row("benchmarks.gpu.limits:cnn_compiled", 110, "caption stage and CNN alone, compiled"),
    "model_tests": Row("benchmarks.gpu.suite:others", 50, "the other tests of tests/model, on this machine's CPU"),
    "finetuning_compiled": Row("benchmarks.gpu.training:finetuning_compiled", 90, "as finetuning, the CNN compiled"),
}


def limit_s(rows: Sequence[Row], left_s: float) -> float:
    """Returns the seconds that the first row may take; 0 if it does not fit.

    It may overrun its cost by time that is not reserved for the later rows that still fit.
    """
    kept_s = 0.0
    for row in rows:
        if kept_s + row.cost_s <= left_s:
            kept_s += row.cost_s
        elif row is rows[0]:
            return 0.0
    return left_s - kept_s + rows[0].cost_s
