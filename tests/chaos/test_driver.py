"""Killed at any instant or asked to stop, the same command again leaves the rows of an undisturbed run."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Run, assert_same, pictures, rows_of, tar_of_pictures
from faults import Survived, chosen, only_full

CHECKOUT = Path(__file__).parents[2]
DEADLINE_S = 60.0
IMAGES = 400
"""More than a run can caption one by one between its first commit and being asked to stop."""

KILLED_AT_EVERY_STEP = """
import os, signal, sys

import torch

import jobs.caption
import pipeline.inference.local_runner
from jobs import cli
from pipeline.output import lease
from pipeline.storage import s3_client

where, chosen, arguments = sys.argv[1], eval(sys.argv[2]), sys.argv[3:]
torch.set_num_threads(1)
lease.SETTLING_S = 0.0
sync, put, left = os.fsync, s3_client.put, -1


def step():
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)


def step_and_sync(file):
    step()
    sync(file)


def step_and_put(path, data, **conditions):
    step()
    try:
        return put(path, data, **conditions)
    finally:
        step()


def run(output, step_of_death):
    global left
    child = os.fork()
    if not child:
        left = step_of_death
        os._exit(cli.main([*arguments, "--output", output]))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if "://" in where:
    s3_client.put = step_and_put  # before and after each PUT
else:
    os.fsync = step_and_sync  # before and after each rename
for n in chosen:
    print(n, run(f"{where}/{n}", n), run(f"{where}/{n}", 0), flush=True)
"""
"""Folder n gets a run that is killed at its n-th step, which is before or after a write; then a whole run."""


def command(captioner: Path, *arguments: object, verb: str = "caption") -> list[str]:
    usual = ["--captioner", captioner, "--runner", "local", "--local.num_threads", 1, "--search.beam_size", 2]
    return [verb, *map(str, [*usual, "--search.max_tokens", 6, "--batch_size", 1, "--rows_per_file", 2, *arguments])]


@pytest.mark.parametrize("form", ["parquet", pytest.param("jsonl", marks=only_full)])
@pytest.mark.parametrize("store", ["disk", "S3"])
def test_killed_before_and_after_every_write(  # noqa: PLR0917
    store: str,
    form: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    captioner: Path,
    caption: Run,
    shardtalk: Run,
    survived: Survived,
) -> None:
    inputs = [pictures(tmp_path / "in", 2), tar_of_pictures(tmp_path / "s.tar", 3)]
    assert caption(*inputs, "--format", form)[0] == 0
    undisturbed = rows_of(tmp_path / "out")
    where = str(tmp_path / "killed") if store == "disk" else f"{request.getfixturevalue('bucket').url}/killed"
    # Lease, claim of the epoch, job, what it found, plan, three parts and records, two of the manifest; twice: before
    # and after. On S3 a write that finds out whether the store has conditions, too.
    steps = 2 * (5 + 3 + 3 + 2 + (store == "S3"))
    places = [*chosen(range(1, steps + 1), few=9 if store == "disk" else 4), steps + 1]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            KILLED_AT_EVERY_STEP,
            where,
            str(places),
            *command(captioner, *inputs, "--format", form),
        ],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
        timeout=10 * DEADLINE_S,
    )
    runs = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert runs == [(n, 0 if n > steps else -signal.SIGKILL, 0) for n in places], done.stderr
    for n in places:
        assert_same(rows_of(f"{where}/{n}"), undisturbed)
        assert shardtalk("verify", f"{where}/{n}", *inputs)[0] == 0
        assert not list(tmp_path.rglob("*.tmp"))
    survived(
        f"SIGKILL of the driver before or after a write, {store}", "the same command does the rest", len(places) - 1
    )


@pytest.mark.parametrize("asked_by", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_commits_and_says_3(
    asked_by: signal.Signals, tmp_path: Path, captioner: Path, caption: Run, shardtalk: Run
) -> None:
    folder = pictures(tmp_path / "in", 1)
    for i in range(IMAGES):
        (folder / f"{i:04}.jpg").hardlink_to(folder / "0.jpg")
    arguments = command(captioner, folder, "--output", tmp_path / "out")
    with subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *arguments],
        cwd=CHECKOUT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        deadline = time.monotonic() + DEADLINE_S
        while not list(tmp_path.glob("out/_commits/*.commit")) and child.poll() is None:
            assert time.monotonic() < deadline
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=0.005)
        child.send_signal(asked_by)
        said = child.communicate(timeout=DEADLINE_S)[1]
    assert child.returncode == 3, said
    assert said.count("\n") == 3 and "the same command again" in said
    committed = rows_of(tmp_path / "out")
    assert 0 < len(committed) <= IMAGES
    assert f"{len(committed)} rows are committed" in said
    assert shardtalk("verify", tmp_path / "out", folder)[0] == 1
    assert caption(folder)[0] == 0
    ids = {row["image_id"] for row in committed}
    assert [row for row in rows_of(tmp_path / "out") if row["image_id"] in ids] == committed
    assert shardtalk("verify", tmp_path / "out", folder)[0] == 0


HANGING = """
import os, signal, sys, threading
from jobs import cli
from pipeline.storage import folder

def hang(file):
    if "part-" in os.readlink(f"/proc/self/fd/{file}"):
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait()

folder.os.fsync = hang
cli.main(sys.argv[1:])
"""


def test_a_commit_that_hangs_is_given_up_after_the_grace_period(
    tmp_path: Path, captioner: Path, caption: Run, shardtalk: Run
) -> None:
    folder = pictures(tmp_path / "in", 2)
    arguments = command(captioner, folder, "--output", tmp_path / "out", "--shutdown_timeout_s", 0.1)
    ended = subprocess.run(
        [sys.executable, "-c", HANGING, *arguments],
        check=False,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert ended.returncode == 3 and "within 0.1 s" in ended.stderr
    assert not list(tmp_path.glob("out/_commits/*"))
    assert caption(folder)[0] == 0
    assert shardtalk("verify", tmp_path / "out", folder)[0] == 0
