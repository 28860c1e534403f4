"""Closed and full streams, faults and signals: a line, and the right exit code."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Run, pictures, rows_of

import jobs.caption
import jobs.verify
from pipeline.errors import InputError

CHECKOUT = Path(__file__).parents[2]


def shell(line: str, *arguments: object, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Runs `shardtalk` through a shell, which closes streams; "$@" are the arguments."""
    command = line.replace("shardtalk", f"{sys.executable} -m jobs.cli")
    return subprocess.run(
        ["/bin/bash", "-c", command, "bash", *map(str, arguments)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )


@pytest.fixture
def output(tmp_path: Path, caption: Run) -> Path:
    assert caption(pictures(tmp_path / "in", 2))[0] == 0
    return tmp_path / "out"


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_without_its_streams_a_job_does_its_work(closed: str, tmp_path: Path, captioner: Path) -> None:
    done = shell(
        f'shardtalk caption "$@" --search.beam_size 1 {closed}',
        *(pictures(tmp_path / "in", 2), "--captioner", captioner, "--output", tmp_path / "out"),
    )
    assert done.returncode == 0
    assert len(rows_of(tmp_path / "out")) == 2


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "2>/dev/full"])
def test_without_its_streams_a_mistake_is_one(closed: str, tmp_path: Path) -> None:
    assert shell(f'shardtalk verify "$@" {closed}', tmp_path / "nothing").returncode == 2
    assert shell(f'shardtalk verify "$@" {closed}', "--no_such_option").returncode == 2
    assert shell(f"shardtalk nonsense {closed}").returncode == 2


@pytest.mark.parametrize("line", ['shardtalk verify "$@"', 'shardtalk status "$@"', "shardtalk --help"])
def test_a_full_disk_under_stdout_is_said(line: str, output: Path) -> None:
    done = shell(f"{line} >/dev/full", output)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "No space left on device" in done.stderr


def test_a_reader_that_has_enough_is_no_traceback(output: Path) -> None:
    done = shell('set -o pipefail; shardtalk status "$@" | true', output)
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr and done.stderr.count("\n") <= 1


@pytest.mark.parametrize("module", ["jobs.cli caption", "jobs.caption"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_it_imports_it_says_so(module: str, number: signal.Signals, tmp_path: Path) -> None:
    """Interrupts the process while it imports, as during the import of torch."""
    (tmp_path / "torch.py").write_text(f"import os, time\nos.kill(os.getpid(), {int(number)})\ntime.sleep(60)\n")
    done = subprocess.run(
        [sys.executable, "-m", *module.split(), str(tmp_path), "--output", str(tmp_path / "out")],
        cwd=CHECKOUT,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{CHECKOUT}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 3
    assert done.stderr.endswith(": interrupted\n") and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_signals_that_are_ignored_stay_so() -> None:
    code = "import os; from jobs.console import startup_signals; startup_signals.interrupt_on_signals();"
    code += " os.kill(os.getpid(), 2); print('alive')"
    done = subprocess.run(
        [sys.executable, "-c", f"import signal; signal.signal(2, signal.SIG_IGN); {code}"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "alive\n"


def test_interrupted_before_its_options_are_read_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "difflib.py").write_text(
        f"import os, time\nos.kill(os.getpid(), {int(signal.SIGINT)})\ntime.sleep(60)\n"
    )
    done = subprocess.run(
        [Path(sys.executable).with_name("shardtalk"), "status", tmp_path],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(CHECKOUT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (3, "shardtalk: interrupted\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_it_lists_it_gives_the_lease_back(
    number: signal.Signals, tmp_path: Path, caption: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, load = pictures(tmp_path / "in", 2), jobs.caption.CommitLog.load

    def interrupted(*_: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(60)

    monkeypatch.setattr(jobs.caption.CommitLog, "load", interrupted)
    assert caption(folder) == (3, "shardtalk caption: interrupted\n")
    assert not (tmp_path / "out" / "_lease.json").exists()
    monkeypatch.setattr(jobs.caption.CommitLog, "load", load)
    assert caption(folder)[0] == 0


FAULTS = [errno.EIO, errno.ENOSPC, errno.ECONNRESET, errno.ETIMEDOUT, errno.EHOSTUNREACH]


@pytest.mark.parametrize("number", FAULTS)
def test_faults_are_failures_and_no_mistakes(
    number: int, tmp_path: Path, shardtalk: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = OSError(number, os.strerror(number))

    def raw(config: object) -> int:
        raise fault

    def wrapped(config: object) -> int:
        raise InputError("s3://bucket cannot be listed") from fault

    for run in (raw, wrapped):
        monkeypatch.setattr(jobs.verify, "run", run)
        code, said = shardtalk("verify", tmp_path)
        assert code == 1 and said.startswith("shardtalk verify: failed: ") and said.count("\n") == 1


def test_what_is_not_there_is_a_mistake(tmp_path: Path, shardtalk: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(config: object) -> int:
        raise InputError("there is no s3://bucket") from FileNotFoundError(errno.ENOENT, "none")

    monkeypatch.setattr(jobs.verify, "run", run)
    assert shardtalk("verify", tmp_path) == (2, "shardtalk verify: error: there is no s3://bucket\n")


def test_a_disk_that_is_full_from_the_start_fails(
    tmp_path: Path, caption: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = pictures(tmp_path / "in", 2)
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.storage.folder.os.fsync", full)
        code, said = caption(folder)
    assert code == 1 and said.count("\n") == 1 and "No space left on device" in said
    assert caption(folder)[0] == 0


def test_an_output_that_is_mounted_read_only_is_a_mistake(
    tmp_path: Path, caption: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.output.job_record.os.access", lambda path, mode: mode != os.W_OK | os.X_OK)
    code, said = caption(pictures(tmp_path / "in", 2))
    assert code == 2 and said.count("\n") == 1 and "is not writable" in said
    assert not (tmp_path / "out").exists()


def test_names_cannot_move_the_cursor_or_make_lines(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    name = "a\x1b[2J\nshardtalk caption: 0 errors\u202e.tar"
    (tmp_path / name).write_bytes(b"no tar " * 100)
    code, said = caption(tmp_path / name)
    assert code == 1 and "\x1b" not in said and "\u202e" not in said
    assert "a\\x1b[2J\\nshardtalk caption: 0 errors\\u202e.tar" in said
    code, said = shardtalk("verify", tmp_path / "out", tmp_path)
    assert (
        code == 1
        and "\x1b" not in said
        and all(line.count("0 errors") == 0 or "\\n" in line for line in said.split("\n"))
    )
    code, said = caption(tmp_path / "\x1bnothing")
    assert code == 2 and "nothing does not exist" in said and "\x1b" not in said
