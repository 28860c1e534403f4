"""Injected faults: a selection of each kind, or all with CHAOS=full, as in `make chaos`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest

Place = TypeVar("Place")
Survived = Callable[..., None]
"""`survived(fault, effect, times=1)`: a fault was injected, and the rows were those of an undisturbed run."""

_SURVIVED: Counter[tuple[str, str]] = Counter()


def is_full() -> bool:
    """Returns whether every fault is tried at every place."""
    return os.environ.get("CHAOS") == "full"


def chosen(places: Sequence[Place], few: int) -> list[Place]:
    """Returns all places, or about `few` of them, evenly spread."""
    return list(places if is_full() else places[:: max(1, len(places) // few)])


only_full = pytest.mark.skipif(not is_full(), reason="of `make chaos`")


@pytest.fixture
def survived() -> Survived:
    """Counts faults for the table at the end."""

    def count(fault: str, effect: str, times: int = 1) -> None:
        _SURVIVED[fault, effect] += times

    return count


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the table of docs/reliability.md."""
    if not _SURVIVED or not is_full():
        return
    terminalreporter.section("faults injected, after each of which the output was that of an undisturbed run")
    for (fault, effect), times in sorted(_SURVIVED.items()):
        terminalreporter.write_line(f"| {fault} | {times:,} | {effect} |")
    terminalreporter.write_line(f"| **in all** | {_SURVIVED.total():,} | |")
