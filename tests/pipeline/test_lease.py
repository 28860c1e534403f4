"""Who may write an output."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import lease
from pipeline.errors import OutputError
from pipeline.lease import LEASE, SETTLING_S, SILENCE_S, Owner, take
from pipeline.storage import Folder


class Clock:
    """In the place of `time.sleep`: counts, and lets something happen at a time."""

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
    """One where files can be created exclusively, and one where they cannot."""
    folder = Folder(f"{tmp_path}/out")
    folder.write("_job.json", b"{}")
    if request.param:
        monkeypatch.setattr(Folder, "create", lambda *_: False)
    return folder


def elsewhere(name: str = "other") -> Owner:
    return Owner(name, "another-host", 7, "boot 1", "2026-01-01")


def write(folder: Folder, owner: Owner, renewals: int = 0) -> None:
    folder.write(LEASE, lease._encoded(owner, renewals))


def test_a_lease_is_taken_renewed_and_given_back(folder: Folder, clock: Clock) -> None:
    mine = take(folder)
    mine.confirm()
    mine.renew()
    assert json.loads(folder.read(LEASE))["renewals"] == 1
    mine.release()
    assert folder.names() == ["_job.json"]
    assert clock.now in (0.0, SETTLING_S)


def test_a_second_driver_of_this_machine_is_refused_at_once(folder: Folder, clock: Clock) -> None:
    mine = take(folder)
    before = clock.now
    with pytest.raises(OutputError, match=f"being written by process .* on {socket.gethostname()}"):
        take(folder)
    assert clock.now == before
    mine.confirm()


def test_a_driver_that_died_on_this_machine_is_followed_at_once(tmp_path: Path, clock: Clock) -> None:
    code = "import sys; from pipeline.lease import take; from pipeline.storage import Folder; take(Folder(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=Path(__file__).parents[2])
    folder = Folder(str(tmp_path))
    assert folder.names() == [LEASE]
    take(folder).confirm()
    assert clock.now == 0.0


def test_a_number_that_another_process_has_now_is_no_sign_of_life(folder: Folder, clock: Clock) -> None:
    mine = Owner.me()
    write(folder, Owner("before", mine.host, mine.pid, "another boot 99", "2026-01-01"))
    take(folder).confirm()
    assert clock.now in (0.0, SETTLING_S)


def test_silence_elsewhere_is_waited_for(folder: Folder, clock: Clock) -> None:
    write(folder, elsewhere())
    take(folder).confirm()
    assert SILENCE_S <= clock.now <= SILENCE_S + SETTLING_S


def test_a_sign_of_life_elsewhere_refuses(folder: Folder, clock: Clock) -> None:
    write(folder, elsewhere())
    clock.events.append((20.0, lambda: write(folder, elsewhere(), 1)))
    with pytest.raises(OutputError, match="process 7 on another-host"):
        take(folder)
    assert clock.now < SILENCE_S


def test_who_is_done_while_we_wait_is_followed(folder: Folder, clock: Clock) -> None:
    write(folder, elsewhere())
    clock.events.append((5.0, lambda: folder.remove(LEASE)))
    take(folder).confirm()
    assert clock.now < SILENCE_S


def test_of_two_that_come_at_once_one_goes_on(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Folder, "create", lambda *_: False)
    folder = Folder(str(tmp_path))
    clock.events.append((SETTLING_S / 2, lambda: write(folder, elsewhere("faster"))))
    with pytest.raises(OutputError, match="taken over by process 7"):
        take(folder)


def test_a_driver_that_slept_too_long_finds_out(folder: Folder, clock: Clock) -> None:
    mine = take(folder)
    write(folder, elsewhere())
    for attempt in (mine.confirm, mine.renew):
        with pytest.raises(OutputError, match="taken over by process 7 on another-host"):
            attempt()
    mine.release()
    assert json.loads(folder.read(LEASE))["id"] == "other"
    folder.remove(LEASE)
    with pytest.raises(OutputError, match="taken over"):
        mine.confirm()


def test_a_damaged_lease_is_named(folder: Folder, clock: Clock) -> None:
    folder.write(LEASE, b"{")
    with pytest.raises(OutputError, match=r"_lease\.json is damaged"):
        take(folder)
