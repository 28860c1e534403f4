"""The lease of an output."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import OutputError, WriteError
from pipeline.output import lease
from pipeline.output.commit_log import CommitLog
from pipeline.output.lease import EXPIRY_S, LEASE, SETTLE_S, Owner, acquire, read_owner
from pipeline.storage.folder import Folder


class Clock:
    """Replaces `time.sleep`: counts seconds, and calls a function at a given time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events: list[tuple[float, Callable[[], object]]] = []

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for event in [event for event in self.events if event[0] <= self.now]:
            self.events.remove(event)
            event[1]()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(lease.time, "sleep", clock.sleep)
    return clock


@pytest.fixture(params=["", "file://"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """An output folder, with and without exclusive creation of files."""
    folder = Folder(f"{tmp_path}/out")
    folder.write("_job.json", b"{}")
    if request.param:
        monkeypatch.setattr(Folder, "create", lambda *_: False)
    return folder


def elsewhere(name: str = "other") -> Owner:
    return Owner(name, "another-host", "boot 1", 7, "99", "2026-01-01")


def write(folder: Folder, owner: Owner, renewals: int = 0) -> None:
    folder.write(LEASE, lease._encoded(owner, renewals))


def test_a_lease_is_taken_renewed_and_given_back(folder: Folder, clock: Clock) -> None:
    mine = acquire(folder)
    mine.confirm()
    before = folder.read(LEASE)
    mine.renew()
    assert folder.read(LEASE) != before
    assert json.loads(folder.read(LEASE))["renewals"] == 1
    mine.release()
    assert folder.names() == ["_job.json"]
    assert clock.now in (0.0, SETTLE_S)


def test_a_second_driver_of_this_machine_is_refused_at_once(folder: Folder, clock: Clock) -> None:
    mine = acquire(folder)
    before = clock.now
    with pytest.raises(OutputError, match=f"being written by process .* on {socket.gethostname()}"):
        acquire(folder)
    assert clock.now == before
    mine.confirm()


def test_a_driver_that_died_on_this_machine_is_followed_at_once(tmp_path: Path, clock: Clock) -> None:
    code = """import sys
from pipeline.output.lease import acquire
from pipeline.storage.folder import Folder
acquire(Folder(sys.argv[1]))"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=Path(__file__).parents[3])
    folder = Folder(str(tmp_path))
    assert folder.names() == [LEASE]
    acquire(folder).confirm()
    assert clock.now == 0.0


def test_a_number_that_another_process_has_now_is_no_sign_of_life(folder: Folder, clock: Clock) -> None:
    write(folder, replace(Owner.me(), id="before", started="1"))
    acquire(folder).confirm()
    assert clock.now in (0.0, SETTLE_S)


def test_silence_elsewhere_is_waited_for(folder: Folder, clock: Clock) -> None:
    write(folder, elsewhere())
    acquire(folder).confirm()
    assert EXPIRY_S <= clock.now <= EXPIRY_S + SETTLE_S


def test_a_sign_of_life_elsewhere_refuses(folder: Folder, clock: Clock) -> None:
    write(folder, elsewhere())
    clock.events.append((20.0, lambda: write(folder, elsewhere(), 1)))
    with pytest.raises(OutputError, match="process 7 on another-host"):
        acquire(folder)
    assert clock.now < EXPIRY_S


def test_who_is_done_while_we_wait_is_followed(folder: Folder, clock: Clock) -> None:
    write(folder, elsewhere())
    clock.events.append((5.0, lambda: folder.remove(LEASE)))
    acquire(folder).confirm()
    assert clock.now < EXPIRY_S


def test_of_two_that_come_at_once_one_goes_on(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Folder, "create", lambda *_: False)
    folder = Folder(str(tmp_path))
    clock.events.append((SETTLE_S / 2, lambda: write(folder, elsewhere("faster"))))
    with pytest.raises(OutputError, match="taken over by process 7"):
        acquire(folder)


def test_a_driver_that_slept_too_long_finds_out(folder: Folder, clock: Clock) -> None:
    mine = acquire(folder)
    folder.remove(LEASE)
    other = acquire(folder)
    write(folder, elsewhere())
    for attempt in (mine.confirm, mine.renew):
        with pytest.raises(OutputError, match="taken over by process 7 on another-host"):
            attempt()
    mine.release()
    assert json.loads(folder.read(LEASE))["id"] == "other"
    folder.remove(LEASE)
    with pytest.raises(OutputError, match="taken over by another driver"):
        mine.confirm()
    other.confirm()


def test_a_renewal_that_came_late_does_not_stop_the_driver_that_took_over(folder: Folder, clock: Clock) -> None:
    slow = acquire(folder)
    late = folder.read(LEASE)
    folder.remove(LEASE)
    mine = acquire(folder)
    folder.write(LEASE, late)
    mine.renew()
    assert json.loads(folder.read(LEASE))["id"] == mine.epoch.driver
    with pytest.raises(OutputError, match="taken over"):
        slow.renew()


def test_an_epoch_begins_with_each_driver(folder: Folder, clock: Clock) -> None:
    numbers = []
    for _ in range(3):
        mine = acquire(folder)
        mine.start(CommitLog(), {"format": "parquet"})
        numbers.append(mine.epoch.number)
        mine.release()
    assert numbers == [1, 2, 3]
    assert folder.names("_epochs") == ["000003", f"{mine.epoch.id}.json"]


def test_after_many_epochs_an_old_driver_still_finds_out(folder: Folder, clock: Clock) -> None:
    old = acquire(folder)
    for _ in range(3):
        folder.remove(LEASE)
        acquire(folder).start(CommitLog(), {})
    with pytest.raises(OutputError, match="taken over"):
        old.confirm()


def test_a_process_in_another_pid_namespace_is_watched(folder: Folder, clock: Clock) -> None:
    """In this PID namespace the number may belong to another process."""
    place = Owner.me().place.rpartition("[")[0] + "[1]"
    write(folder, replace(Owner.me(), id="other", place=place, pid=2**22 + 1))
    acquire(folder).confirm()
    assert clock.now >= EXPIRY_S


def test_a_process_of_our_number_on_another_machine_is_watched(folder: Folder, clock: Clock) -> None:
    write(folder, replace(Owner.me(), id="other", host="another-host"))
    acquire(folder).confirm()
    assert clock.now >= EXPIRY_S


def test_a_process_that_ended_and_whom_nobody_waited_for_is_dead(folder: Folder, clock: Clock) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        write(folder, replace(Owner.me(), id="other", pid=child.pid, started=lease._start_time(child.pid)))
        with pytest.raises(OutputError, match=f"process {child.pid}"):
            acquire(folder)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it is dead now, and still has its number
        acquire(folder).confirm()
    assert clock.now in (0.0, SETTLE_S)


@pytest.mark.parametrize("torn", [b"", b"{", b"[]", b"\xff", b'{"renewals": 3}', b'{"id": "of another version"}'])
def test_a_lease_that_cannot_be_read_is_watched_and_taken_over(torn: bytes, folder: Folder, clock: Clock) -> None:
    folder.write(LEASE, torn)
    assert read_owner(folder) is None
    acquire(folder).confirm()
    assert EXPIRY_S <= clock.now <= EXPIRY_S + SETTLE_S


def test_a_lease_that_cannot_be_read_and_changes_is_somebodys(folder: Folder, clock: Clock) -> None:
    folder.write(LEASE, b"")
    clock.events.append((20.0, lambda: write(folder, elsewhere())))
    with pytest.raises(OutputError, match="process 7 on another-host"):
        acquire(folder)


@pytest.mark.parametrize("refusal", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES])
def test_a_filesystem_without_hard_links_has_leases(
    refusal: int, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    folder = Folder(str(tmp_path))
    mine = acquire(folder)
    with pytest.raises(OutputError, match="being written by process"):
        acquire(folder)
    mine.release()
    acquire(folder).confirm()
    assert clock.now == 0.0
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["000001", "000002", LEASE]


def test_a_lease_without_room_on_the_disk_is_no_lease(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pipeline.storage.folder.os.fsync", full)
    with pytest.raises(WriteError, match="No space left on device"):
        acquire(Folder(str(tmp_path)))
    assert not list(tmp_path.iterdir())
