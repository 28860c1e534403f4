"""One driver at a time: whoever writes an output holds its lease, a small file that is renewed while it lives.

A lease whose owner is dead is taken over. Death is known at once on the same machine; elsewhere it is the silence of a
lease that was not renewed while we watched it, so clocks need not agree. A driver that was only asleep finds out before
its next commit that the lease is another's, and stops.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import OutputError
from pipeline.storage import Folder

LEASE = "_lease.json"
RENEWED_EVERY_S = 10.0
SILENCE_S = 40.0
"""Of an owner elsewhere that is taken for dead."""
SETTLING_S = 2.0
"""Longer than a small write takes: where files cannot be created exclusively, the last of several writers wins."""


@dataclass(frozen=True)
class Owner:
    """The driver that holds a lease."""

    id: str
    host: str
    pid: int
    process: str
    """Tells this process from others that had its number."""
    since: str

    @classmethod
    def me(cls) -> Owner:
        """This process, for one lease."""
        since = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        return cls(uuid.uuid4().hex, socket.gethostname(), os.getpid(), _process(os.getpid()) or "", since)

    @property
    def is_alive(self) -> bool:
        """Whether it is known to be: it runs on this machine."""
        return self._was_here and _process(self.pid) == self.process

    @property
    def is_dead(self) -> bool:
        """Whether it is known to be: it ran on this machine, and does not any more."""
        return self._was_here and _process(self.pid) != self.process

    @property
    def _was_here(self) -> bool:
        return self.host == socket.gethostname() and bool(self.process)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class Lease:
    """A lease that this process holds. Made by `take`."""

    def __init__(self, folder: Folder, owner: Owner) -> None:
        self._folder, self._owner = folder, owner
        self._renewals = 0

    def confirm(self) -> None:
        """Raises OutputError if another driver has taken the output over."""
        found = _read(self._folder)
        if not found or found[0] != self._owner:
            other = found[0] if found else "somebody who is done"
            raise OutputError(f"{self._folder.url} was taken over by {other}; this driver had been silent for too long")

    def renew(self) -> None:
        """Shows that its owner lives. Raises OutputError as `confirm` does, or FileExistsError."""
        version = self._folder.version(LEASE)
        self.confirm()
        self._renewals += 1
        self._folder.replace(LEASE, _encoded(self._owner, self._renewals), version)

    def release(self) -> None:
        """Gives it back, if it is still ours."""
        found = _read(self._folder)
        if found and found[0] == self._owner:
            self._folder.remove(LEASE)


@contextlib.contextmanager
def held(folder: Folder) -> Iterator[Lease]:
    """Takes the lease of an output, as `take` does, renews it in the background, and gives it back."""
    lease, ended = take(folder), threading.Event()

    def renew() -> None:
        while not ended.wait(RENEWED_EVERY_S):
            with contextlib.suppress(OSError, OutputError):  # the next commit says what is wrong
                lease.renew()

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        ended.set()
        thread.join()
        lease.release()


def holder(folder: Folder) -> Owner | None:
    """Who holds the lease of an output, dead or alive."""
    found = _read(folder)
    return found[0] if found else None


def take(folder: Folder, *, wait_s: float = 1.0) -> Lease:
    """Takes the lease. Raises OutputError if its owner lives, after waiting for a sign where it runs elsewhere."""
    owner = Owner.me()
    _await_silence(folder, wait_s)
    try:
        if not folder.create(LEASE, _encoded(owner, 0)):
            folder.write(LEASE, _encoded(owner, 0))
            time.sleep(SETTLING_S)
    except FileExistsError as error:
        raise OutputError(f"{folder.url} is being written by another driver, which was faster") from error
    lease = Lease(folder, owner)
    lease.confirm()
    return lease


def _await_silence(folder: Folder, wait_s: float) -> None:
    """Returns once there is no lease, or its owner is dead; then the lease is gone."""
    found, waited = _read(folder), 0.0
    while found and not found[0].is_dead and waited < SILENCE_S:
        before = found
        if not before[0].is_alive:
            time.sleep(wait_s)
            waited += wait_s
            found = _read(folder)
        if before[0].is_alive or (found and found != before):
            raise OutputError(f"{folder.url} is being written by {before[0]}; one driver at a time")
    if found:
        with contextlib.suppress(FileNotFoundError):
            folder.remove(LEASE)


def _read(folder: Folder) -> tuple[Owner, int] | None:
    try:
        fields: dict[str, Any] = json.loads(folder.read(LEASE))
        renewals = int(fields.pop("renewals"))
        return Owner(**fields), renewals
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise OutputError(f"{folder.url}/{LEASE} is damaged ({error}); remove it if no job is running") from error


def _encoded(owner: Owner, renewals: int) -> bytes:
    return json.dumps(asdict(owner) | {"renewals": renewals}).encode()


def _process(pid: int) -> str | None:
    """What only the process that has this number now has: the time of its start. None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return f"{boot} {stat.rpartition(')')[2].split()[19]}"
