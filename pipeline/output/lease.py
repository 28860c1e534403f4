"""One driver at a time: whoever writes an output holds its lease, a small file that is renewed while it lives.

A lease whose owner is dead is taken over. Death is known at once where the owner was a process of this machine and PID
namespace; elsewhere it is the silence of a lease that did not change while we watched it, so clocks need not agree. So
is that of a lease that cannot be read. The lease keeps drivers apart; a driver that was only asleep, and believes that
it still holds it, is told apart by its epoch (`pipeline.output.epochs`).
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
"""Of an owner elsewhere that is taken for dead."""
SETTLE_S = 2.0
"""Longer than a small write takes: where files cannot be created exclusively, the last of several writers wins."""
_ENDED = frozenset("ZXx")
"""States of processes whose parent has not asked yet how they ended."""


@dataclass(frozen=True)
class Owner:
    """The driver that holds a lease."""

    id: str
    host: str
    place: str
    """Boot of the machine, and PID namespace: where process numbers mean the same. Empty where that is not known."""
    pid: int
    started: str
    """When, in ticks since the boot: tells this process from others that had its number."""
    since: str

    @classmethod
    def me(cls) -> Owner:
        """This process, for one lease."""
        since, pid = time.strftime("%Y-%m-%dT%H:%M:%S%z"), os.getpid()
        return cls(uuid.uuid4().hex, socket.gethostname(), _place(), pid, _start_time(pid), since)

    @property
    def is_alive(self) -> bool:
        """Whether it is known to be: it runs here."""
        return self._was_here and _start_time(self.pid) == self.started

    @property
    def is_dead(self) -> bool:
        """Whether it is known to be: it ran here, and does not any more."""
        return self._was_here and _start_time(self.pid) != self.started

    @property
    def _was_here(self) -> bool:
        return (self.host, self.place) == (socket.gethostname(), _place()) and bool(self.place and self.started)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class Lease:
    """A lease that this process holds, and its epoch. Made by `acquire`."""

    def __init__(self, folder: Folder, owner: Owner, epoch: Epoch) -> None:
        self._folder, self._owner, self.epoch = folder, owner, epoch
        self._renewals = 0
        self._job: Mapping[str, Any] = {}

    def start(self, commit_log: CommitLog, job: Mapping[str, Any]) -> None:
        """Writes that the commits of the ledger count, and no others of older drivers."""
        self._job = job
        self.write_snapshot(commit_log)
        epochs.remove_older(self._folder, self.epoch)

    def write_snapshot(self, commit_log: CommitLog) -> None:
        """Writes that commits do not count any more that were there at the beginning and are not in the ledger now."""
        epochs.write_snapshot(self._folder, self.epoch, [commit.file for commit in commit_log.commits], self._job)

    def confirm(self) -> None:
        """Raises OutputError if another driver has taken the output over."""
        if not epochs.is_newest(self._folder, self.epoch):
            other = read_owner(self._folder)
            by = other if other and other != self._owner else "another driver"
            raise OutputError(f"{self._folder.url} was taken over by {by}; this driver had been silent for too long")

    def renew(self) -> None:
        """Shows that its owner lives. Raises OutputError as `confirm` does, or FileExistsError."""
        version = self._folder.version(LEASE)
        self.confirm()
        self._renewals += 1
        self._folder.replace(LEASE, _encoded(self._owner, self._renewals), version)

    def release(self) -> None:
        """Gives it back, if it is still ours."""
        if read_owner(self._folder) == self._owner:
            self._folder.remove(LEASE)


@contextlib.contextmanager
def hold(folder: Folder) -> Iterator[Lease]:
    """Takes the lease of an output, as `acquire` does, renews it in the background, and gives it back."""
    lease, ended = acquire(folder), threading.Event()

    def renew() -> None:
        while not ended.wait(RENEW_INTERVAL_S):
            with contextlib.suppress(OSError, OutputError):  # the next commit says what is wrong
                lease.renew()

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(OSError):  # which says less than what went wrong before; the next driver sees us dead
            lease.release()


def read_owner(folder: Folder) -> Owner | None:
    """Who holds the lease of an output, dead or alive; None where nobody does, or it cannot be read."""
    return _decoded(_read(folder))


def acquire(folder: Folder, *, wait_s: float = 1.0) -> Lease:
    """Takes the lease. Raises OutputError if its owner lives, after waiting for a sign where it runs elsewhere."""
    owner = Owner.me()
    _wait_until_free(folder, wait_s)
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


def _wait_until_free(folder: Folder, wait_s: float) -> None:
    """Returns once there is no lease, or its owner is dead; then the lease is gone."""
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
    """The lease; None if there is none. What is in it may be anything."""
    try:
        return folder.read(LEASE)
    except FileNotFoundError:
        return None


def _decoded(data: bytes | None) -> Owner | None:
    """The owner; None if the lease is torn, say, or of another version."""
    try:
        fields: dict[str, Any] = json.loads(data or b"")
        fields.pop("renewals")
        return Owner(**fields)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _encoded(owner: Owner, renewals: int) -> bytes:
    return json.dumps(asdict(owner) | {"renewals": renewals}).encode()


def _place() -> str:
    """Of this process: boot and PID namespace; empty where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _start_time(pid: int) -> str:
    """When the process of this number started, in ticks since the boot; empty if there is none, or only its remains."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state in _ENDED else fields[18]
