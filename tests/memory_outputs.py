"""Outputs in memory, and drivers of which each thing that they ask of an output is a step.

Drivers are elsewhere to each other: one that is stopped is silent, so others take over what it held.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pytest

from pipeline.output import commit_log, job_record, lease
from pipeline.output.commit_log import CommitLog
from pipeline.output.lease import Owner
from pipeline.schema import CAPTIONED
from pipeline.shards import Shard
from pipeline.storage.folder import Folder
from pipeline.verification import verify

NEVER = 10_000
"""More steps than a driver takes."""


class Store(Folder):
    """An output in memory, which calls `step` before each operation."""

    def __init__(self, files: dict[str, bytes], step: Callable[[], None] = lambda: None, top: str = "") -> None:
        self.url, self.files, self.step, self.top = f"memory://out/{top}".rstrip("/"), files, step, top
        self.unfinished_end = ".tmp"

    def below(self, path: str) -> Store:
        return type(self)(self.files, self.step, f"{self.top}{path.rstrip('/')}/")

    def names(self, below: str = "") -> list[str]:
        self.step()
        prefix = f"{self.top}{below}/" if below else self.top
        found = [name.removeprefix(prefix) for name in self.files if name.startswith(prefix)]
        return sorted(name for name in found if "/" not in name)

    def folders(self, below: str) -> list[str]:
        self.step()
        prefix = f"{self.top}{below}/" if below else self.top
        found = [name.removeprefix(prefix).split("/") for name in self.files if name.startswith(prefix)]
        return sorted({parts[0] for parts in found if len(parts) > 1})

    def exists(self, name: str) -> bool:
        self.step()
        return self.top + name in self.files

    def read(self, name: str) -> bytes:
        self.step()
        try:
            return self.files[self.top + name]
        except KeyError:
            raise FileNotFoundError(name) from None

    def write(self, name: str, data: bytes) -> None:
        self.step()
        self.files[self.top + name] = data

    def create(self, name: str, data: bytes) -> bool:
        self.step()
        if self.top + name in self.files:
            raise FileExistsError(name)
        self.files[self.top + name] = data
        return True

    def remove(self, name: str) -> None:
        self.step()
        self.files.pop(self.top + name, None)


class StoreWithoutExclusion(Store):
    """A store without exclusive creation."""

    def create(self, name: str, data: bytes) -> bool:
        return False


def rows(shards: list[Shard], driver: str, failing: str) -> Iterator[pa.Table]:
    """Builds a row per shard whose caption is the driver's name, or an error for shards that fail."""
    for shard in shards:
        failed = shard.path.rpartition("/")[2][0] in failing
        row: Mapping[str, Any] = {
            "image_id": shard.path.rpartition("/")[2],
            "shard": shard.path,
            "index": 0,
            "shard_id": shard.id,
            "next_offset": 10,
            "last": True,
            "caption": None if failed else driver,
            "error_code": "unreadable" if failed else None,
            "error_message": "try again" if failed else None,
        }
        yield pa.Table.from_pylist([row], schema=CAPTIONED)


def assert_complete(files: dict[str, bytes], shards: list[Shard]) -> None:
    """Asserts that an output has each shard once, nothing to complain of, and no files that do not count."""
    found = CommitLog.load(Store(files))
    assert list(verify.find_problems(Store(files), found)) == []
    assert sorted(path for commit in found.commits for path in commit.paths.values()) == [s.path for s in shards]
    known = {commit.file for commit in found.commits} | {commit.record for commit in found.commits}
    assert {name for name in files if "part-" in name} == known and not found.stale
    for commit in found.commits:
        assert hashlib.sha256(files[commit.file]).hexdigest() == commit.file_sha256


class Driver:
    """A driver in its own thread that advances a number of steps on request.

    Args:
        work: what it does, given a function to be called before each step; returns what it found in the end.
    """

    def __init__(self, work: Callable[[Callable[[], None]], CommitLog | None]) -> None:
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self.ended, self.left = False, 0
        self.commit_log: CommitLog | None = None
        self.failure: Exception | None = None
        self._work = work
        self._thread = threading.Thread(target=self._drive, daemon=True)
        self._thread.start()

    def go(self, steps: int) -> None:
        """Advances the driver; returns once it has paused again or ended."""
        if not self.ended and steps:
            self.left = steps
            self._go.release()
            self._stopped.acquire()

    def _step(self) -> None:
        if not self.left:
            self._stopped.release()
            self._go.acquire()
        self.left -= 1

    def _drive(self) -> None:
        self._go.acquire()
        try:
            self.commit_log = self._work(self._step)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.failure = error
        self.ended = True
        self._stopped.release()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts every driver on its own machine, makes leases expire at once, and reads records one by one."""
    numbers = itertools.count(1)
    monkeypatch.setattr(Owner, "me", lambda: Owner(f"d{(n := next(numbers)):05}", f"host-{n}", "", n, "", "now"))
    monkeypatch.setattr(lease.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(commit_log, "prefetch_map", lambda function, names, **_: map(function, names))
    monkeypatch.setattr(job_record, "is_remote", lambda url: True)
