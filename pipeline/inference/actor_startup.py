"""Reports how many captioners of a Ray job are up until its first rows arrive: a cluster may have to start nodes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable

import pyarrow as pa

POLL_S = 10.0
"""Seconds between two requests for the number of captioners."""

ReportStartup = Callable[[int, int], None]
"""Called with the number of captioners that are up, and the number that the job starts with."""


class StartupCounter:
    """Counts the actors that have loaded their captioner, by id, since an actor may be restarted. Runs in an actor."""

    def __init__(self) -> None:
        self._ids: set[str] = set()

    def add(self, actor_id: str) -> None:
        """Records that an actor is up."""
        self._ids.add(actor_id)

    def count(self) -> int:
        """Returns the number of actors that have been up."""
        return len(self._ids)


def report_until_first(
    tables: Iterable[pa.Table], count: Callable[[], int], wanted: int, report: ReportStartup
) -> Generator[pa.Table]:
    """Yields the tables; until the first arrives, reports in a thread how many of the wanted captioners are up.

    Args:
        count: the number of captioners that are up.
        wanted: the number that the job starts with.
        report: called every `POLL_S` in which the number has changed.
    """
    arrived = threading.Event()

    def poll() -> None:
        reported = -1
        while not arrived.wait(POLL_S):
            up = count()
            if reported != up < wanted and not arrived.is_set():
                reported = up
                report(up, wanted)

    threading.Thread(target=poll, daemon=True).start()
    try:
        for table in tables:
            arrived.set()
            yield table
    finally:
        arrived.set()
