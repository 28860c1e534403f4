"""Outputs that cannot be written or were tampered with, and clocks that are wrong."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Run, assert_same, pictures, rows_of, tar_of_pictures
from faults import Survived, chosen

CHECKOUT = Path(__file__).parents[2]
YEAR_S = 365 * 86_400


@pytest.fixture
def inputs(tmp_path: Path, caption: Run) -> list[Path]:
    """An input of five rows, with the output of an undisturbed run in `undisturbed`."""
    inputs = [pictures(tmp_path / "in", 2), tar_of_pictures(tmp_path / "s.tar", 3)]
    assert caption(*inputs, output=tmp_path / "undisturbed")[0] == 0
    return inputs


@pytest.fixture
def whole(inputs: list[Path], tmp_path: Path, caption: Run, shardtalk: Run) -> Callable[[Path], None]:
    """Asserts that the same command completes the output to that of an undisturbed run."""

    def check(output: Path) -> None:
        assert caption(*inputs, "--rows_per_file", 2, "--batch_size", 1, output=output)[0] == 0
        assert_same(rows_of(output), rows_of(tmp_path / "undisturbed"))
        assert shardtalk("verify", output, *inputs)[0] == 0

    return check


def test_a_full_disk_at_any_write_costs_nothing(  # noqa: PLR0917
    inputs: list[Path],
    whole: Callable[[Path], None],
    tmp_path: Path,
    caption: Run,
    survived: Survived,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sync, left = os.fsync, 0

    def sync_or_fail(file: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(file)

    monkeypatch.setattr("pipeline.storage.folder.os.fsync", sync_or_fail)
    writes = 26
    for write in chosen(range(1, writes + 1), few=5):
        output, left = tmp_path / f"full{write}", write
        code, said = caption(*inputs, "--rows_per_file", 2, "--batch_size", 1, output=output)
        assert code == 1 and said.count("\n") <= 2 and "No space left on device" in said.splitlines()[-1]
        whole(output)
        survived("disk full at a write", "one line, exit code 1; the same command does the rest")
    left = writes + 1
    assert caption(*inputs, "--rows_per_file", 2, "--batch_size", 1, output=tmp_path / "out")[0] == 0
    assert left == 1  # so many writes there are


def test_a_file_that_cannot_grow_further_is_not_committed(
    inputs: list[Path], whole: Callable[[Path], None], tmp_path: Path, captioner: Path, survived: Survived
) -> None:
    """Uses the kernel's file size limit: writes beyond it fail after earlier ones are on the disk."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))

    usual = ["--captioner", captioner, "--search.beam_size", 2, "--search.max_tokens", 6, "--output", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-m", "jobs.caption", *map(str, [*inputs, *usual])],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
    )
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and len(lines) == 2 and "File too large" in lines[-1]
    assert not list(tmp_path.glob("out/*part-*"))
    whole(tmp_path / "out")
    survived("disk full in the middle of a file", "one line, exit code 1; the same command does the rest")


def test_a_record_torn_at_any_byte_or_gone_is_found_and_mended(
    inputs: list[Path],
    whole: Callable[[Path], None],
    tmp_path: Path,
    shardtalk: Run,
    survived: Survived,
) -> None:
    output = tmp_path / "out"
    whole(output)
    for record in sorted((output / "_commits").iterdir()):
        data = record.read_bytes()
        for size in chosen(range(len(data)), few=8):
            record.write_bytes(data[:size])
            code, said = shardtalk("verify", output)
            assert code != 0 and record.name in said, size
            survived("commit record torn", "verify and resume name it; removed, its rows are redone")
        record.unlink()
        code, said = shardtalk("verify", output)
        assert code == 1 and record.stem in said
        whole(output)
        survived("commit record deleted", "verify says so; the same command redoes its rows")


@pytest.mark.parametrize("skews_s", [(YEAR_S, -YEAR_S), (-YEAR_S, YEAR_S), (0, -3600)])
def test_a_clock_that_is_wrong_changes_nothing(  # noqa: PLR0917
    skews_s: tuple[int, int],
    inputs: list[Path],
    whole: Callable[[Path], None],
    tmp_path: Path,
    caption: Run,
    shardtalk: Run,
    survived: Survived,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, output = time.time, tmp_path / "out"
    for skew_s, given in zip(skews_s, (inputs[:1], inputs), strict=True):
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda skew_s=skew_s: clock() + skew_s)
            assert caption(*given, "--rows_per_file", 1, "--batch_size", 1, output=output)[0] == 0
    code, said = shardtalk("status", output)
    assert code == 0 and "complete" in said and "-" not in said
    whole(output)
    survived("clock of a driver wrong by an hour or a year", "no difference")
