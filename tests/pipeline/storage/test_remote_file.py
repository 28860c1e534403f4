"""A remote file on a filesystem whose requests fail on demand."""

from __future__ import annotations

import io
import random
from typing import Any

import pytest

from pipeline.storage import retries
from pipeline.storage.remote_file import PyArrowSource, RemoteFile
from pipeline.storage.retries import ATTEMPTS

DATA = random.Random(0).randbytes(1000)


class Flaky:
    """The used part of a pyarrow filesystem, where requests with numbers in `failing` fail."""

    def __init__(self, data: bytes = DATA, failing: set[int] | None = None, error: Exception | None = None) -> None:
        self.data, self.failing, self.error = data, failing or set(), error or OSError("connection reset")
        self.requests: list[tuple[int, int]] = []
        self.connections = 0
        self.asked = 0

    def _ask(self) -> None:
        self.asked += 1
        if self.asked - 1 in self.failing:
            raise self.error

    def open_input_file(self, path: str) -> Flaky:
        self._ask()
        self.connections += 1
        return self

    def size(self) -> int:
        return len(self.data)

    def read_at(self, count: int, offset: int) -> bytes:
        self._ask()
        self.requests.append((offset, count))
        return self.data[offset : offset + count]

    def close(self) -> None:
        self.connections -= 1


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(retries.time, "sleep", found.append)
    return found


def opened(system: Any) -> io.BufferedReader:
    return io.BufferedReader(RemoteFile(PyArrowSource(system, "a/b"), range_bytes=64), 16)


def test_it_reads_as_the_file_would() -> None:
    system, draw = Flaky(), random.Random(1)
    with opened(system) as file, io.BytesIO(DATA) as local:
        for _ in range(300):
            step = draw.choice([(draw.randint(0, 1000), 0), (draw.randint(0, 40), 1), (-draw.randint(0, 1000), 2)])
            assert file.seek(*step) == local.seek(*step) == file.tell()
            assert file.read(length := draw.randint(0, 200)) == local.read(length)
    assert system.connections == 0


def test_front_to_back_every_byte_is_asked_for_once() -> None:
    system = Flaky()
    with opened(system) as file:
        assert file.read() == DATA
    assert system.requests == [(offset, min(64, 1000 - offset)) for offset in range(0, 1000, 64)]


def test_a_range_is_asked_for_before_it_is_read() -> None:
    system = Flaky()
    with RemoteFile(PyArrowSource(system, "a/b"), range_bytes=64) as file:  # type: ignore[arg-type]
        for _ in range(3):
            file.read(64)
        file._ahead[1].result()  # type: ignore[index]
        assert system.requests[-1] == (192, 64)


def test_any_request_may_fail_once() -> None:
    steady = Flaky()
    with opened(steady) as file:
        file.read()
    for number in range(steady.asked):
        system = Flaky(failing={number})
        with opened(system) as file:
            assert file.read() == DATA
        assert system.requests == steady.requests
        assert system.connections == 0


def test_a_request_that_keeps_failing_is_an_error(pauses: list[float]) -> None:
    system = Flaky(failing=set(range(3, 1000)))
    with opened(system) as file:
        assert file.read(128) == DATA[:128]
        with pytest.raises(OSError, match="connection reset"):
            file.read(1)
    assert len(pauses) == ATTEMPTS - 1
    assert all(0.1 <= pause <= 8 for pause in pauses) and pauses[-1] > pauses[0]


REFUSED = OSError("When reading information for key 'b': AWS Error ACCESS_DENIED during HeadObject operation")


@pytest.mark.parametrize("error", [FileNotFoundError("gone"), PermissionError("denied"), REFUSED])
def test_what_cannot_heal_is_not_tried_again(error: Exception, pauses: list[float]) -> None:
    with opened(Flaky(failing={0}, error=error)) as file, pytest.raises(type(error)):
        file.read(1)
    assert not pauses


def test_a_file_that_became_shorter_is_an_error() -> None:
    system = Flaky()
    with opened(system) as file:
        file.read(64)
        system.data = DATA[:100]
        with pytest.raises(OSError, match="ends at byte 128; it had 1000 bytes"):
            file.read()
