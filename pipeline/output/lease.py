"""The lease of an output: a small file that the one driver allowed to write holds and renews.

The lease of a dead driver is taken over. A driver in this machine's PID namespace is known to be dead at once. A
driver elsewhere, or an unreadable lease, counts as dead if the file did not change while it was watched, so clocks
need not agree. A driver that was only paused and still believes to hold the lease is excluded by its epoch
(`pipeline.output.epochs`).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import OutputError
from pipeline.output import epochs
from pipeline.output.commit_log import CommitLog
from pipeline.output.epochs import Epoch
from pipeline.storage.folder import Folder

LEASE = "_lease.json"
RENEW_INTERVAL_S = 10.0
EXPIRY_S = 40.0
"""Time without renewal after which a driver on another machine counts as dead."""
SETTLE_S = 2.0
"""Longer than a small write takes: if files cannot be created exclusively, the last of several writers wins."""
_ENDED = frozenset("ZXx")
"""States in /proc of processes that ended and were not yet waited for."""


@dataclass(frozen=True)
class Owner:
    """The driver that holds a lease."""

    id: str
    host: str
    place: str
    """Boot id and PID namespace, within which process ids are comparable; empty if unknown."""
    pid: int
    started: str
    """Start time in ticks since boot: distinguishes the process from others with the same id."""
    since: str

    @classmethod
    def me(cls) -> Owner:
        """Describes this process, with a new id for each lease."""
        since, pid = time.strftime("%Y-%m-%dT%H:%M:%S%z"), os.getpid()
        return cls(uuid.uuid4().hex, socket.gethostname(), _place(), pid, _start_time(pid), since)

    @property
    def is_alive(self) -> bool:
        """True if the owner is known to be alive: it ran on this host and its process still exists."""
        return self._was_here and _start_time(self.pid) == self.started

    @property
    def is_dead(self) -> bool:
        """True if the owner is known to be dead: it ran on this host and its process no longer exists."""
        return self._was_here and _start_time(self.pid) != self.started

    @property
    def _was_here(self) -> bool:
        return (self.host, self.place) == (socket.gethostname(), _place()) and bool(self.place and self.started)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class Lease:
    """The lease that this process holds, and its epoch. Made by `acquire`."""

    def __init__(self, folder: Folder, owner: Owner, epoch: Epoch) -> None:
        self._folder, self._owner, self.epoch = folder, owner, epoch
        self._renewals = 0
        self._job: Mapping[str, Any] = {}

    def start(self, commit_log: CommitLog, job: Mapping[str, Any]) -> None:
        """Begins the epoch: of older drivers' commits, only those in the commit log count."""
        self._job = job
        self.write_snapshot(commit_log)
        epochs.remove_older(self._folder, self.epoch)

    def write_snapshot(self, commit_log: CommitLog) -> None:
        """Records that of older drivers' commits only those in the commit log count; uncommits the others."""
        epochs.write_snapshot(self._folder, self.epoch, [commit.file for commit in commit_log.commits], self._job)

    def confirm(self) -> None:
        """Raises OutputError if another driver has taken the output over."""
        if not epochs.is_newest(self._folder, self.epoch):
            other = read_owner(self._folder)
            by = other if other and other != self._owner else "another driver"
            raise OutputError(f"{self._folder.url} was taken over by {by}; this driver had been silent for too long")

    def renew(self) -> None:
        """Renews the lease. Raises OutputError as `confirm` does, or FileExistsError."""
        version = self._folder.version(LEASE)
        self.confirm()
        self._renewals += 1
        self._folder.replace(LEASE, _encoded(self._owner, self._renewals), version)

    def release(self) -> None:
        """Deletes the lease if this process still holds it."""
        if read_owner(self._folder) == self._owner:
            self._folder.remove(LEASE)


@contextlib.contextmanager
def hold(folder: Folder) -> Iterator[Lease]:
    """Acquires the lease of an output, renews it in a thread, and releases it at the end of the context."""
    lease, ended = acquire(folder), threading.Event()

    def renew() -> None:
        while not ended.wait(RENEW_INTERVAL_S):
            with contextlib.suppress(OSError, OutputError):  # the next commit raises
                lease.renew()

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(OSError):  # must not hide an earlier error; the next driver sees that we are dead
            lease.release()


def read_owner(folder: Folder) -> Owner | None:
    """Returns the owner of an output's lease, dead or alive; None if there is no lease or it is unreadable."""
    return _decoded(_read(folder))


def acquire(folder: Folder, *, wait_s: float = 1.0) -> Lease:
    """Acquires the lease. Raises OutputError if its owner is alive; waits for renewals of an owner elsewhere."""
    owner = Owner.me()
    wait_until_free(folder, wait_s)
    try:
        if not folder.create(LEASE, _encoded(owner, 0)):
            folder.write(LEASE, _encoded(owner, 0))
            time.sleep(SETTLE_S)
            if (other := read_owner(folder)) != owner:
                raise OutputError(f"{folder.url} was taken over by {other or 'another driver'}, which was faster")
    except FileExistsError as error:
        raise OutputError(f"{folder.url} is being written by another driver, which was faster") from error
    try:
        return Lease(folder, owner, epochs.claim(folder, owner.id))
    except BaseException:
        with contextlib.suppress(OSError):
            folder.remove(LEASE)
        raise


def wait_until_free(folder: Folder, wait_s: float = 1.0) -> None:
    """Returns once there is no lease or its owner is dead, and deletes it. Raises OutputError if the owner is alive."""
    found, waited = _read(folder), 0.0
    owner = _decoded(found)
    while found is not None and not (owner and owner.is_dead) and waited < EXPIRY_S:
        before = found
        alive = owner is not None and owner.is_alive
        if not alive:
            time.sleep(wait_s)
            waited += wait_s
            found = _read(folder)
        if alive or (found is not None and found != before):
            owner = _decoded(found) or owner
            raise OutputError(f"{folder.url} is being written by {owner or 'another driver'}; one driver at a time")
    if found is not None:
        folder.remove(LEASE)


def _read(folder: Folder) -> bytes | None:
    """Returns the contents of the lease, unchecked; None if there is none."""
    try:
        return folder.read(LEASE)
    except FileNotFoundError:
        return None


def _decoded(data: bytes | None) -> Owner | None:
    """Returns the owner; None if the lease is damaged or of another version."""
    try:
        fields: dict[str, Any] = json.loads(data or b"")
        fields.pop("renewals")
        return Owner(**fields)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _encoded(owner: Owner, renewals: int) -> bytes:
    return json.dumps(asdict(owner) | {"renewals": renewals}).encode()


def _place() -> str:
    """Returns boot id and PID namespace of this process; empty if the system does not provide them."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _start_time(pid: int) -> str:
    """Returns the start time of a process in ticks since boot; empty if it does not exist or has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state in _ENDED else fields[18]
