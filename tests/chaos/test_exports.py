"""Killed at any write, an export leaves whole files only; the same command again leaves those of an undisturbed one."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import pictures, tar_of_pictures
from exported import captioned
from faults import Survived, chosen

CHECKOUT = Path(__file__).parents[2]
KILLED_AT_EVERY_WRITE = """
import os, shutil, signal, sys

import jobs.export
from jobs import cli

output, where, form, ending, steps = *sys.argv[1:5], eval(sys.argv[5])
sync, left = os.fsync, -1


def step_and_sync(file):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    sync(file)


def run(destination, step_of_death):
    global left
    child = os.fork()
    if not child:
        left = step_of_death
        os._exit(cli.main(["export", output, destination, "--to", form]))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


os.fsync = step_and_sync  # before and after each rename
for n in steps:
    destination = f"{where}/{n}{ending}"
    died = run(destination, n)
    if os.path.isdir(destination):
        shutil.copytree(destination, f"{where}/{n}-killed")
    print(n, died, run(destination, 0), flush=True)
"""


def files_of(place: Path) -> dict[str, bytes]:
    """Reads a file, or the files below a folder, by name."""
    found = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    return {str(path.relative_to(place)): path.read_bytes() for path in found}


@pytest.mark.parametrize(
    ("form", "ending", "steps"),
    [("csv", ".csv", 2), ("txt", "", 16), ("webdataset", "", 10), ("huggingface", "", 22)],
    ids=["csv", "txt", "webdataset", "huggingface"],
)
def test_killed_before_and_after_every_write(
    form: str, ending: str, steps: int, tmp_path: Path, survived: Survived
) -> None:
    tars = [tar_of_pictures(tmp_path / "s" / f"{i}.tar", 2, 9 * i) for i in (0, 1)]
    captioned(tmp_path / "out", pictures(tmp_path / "in", 2), *tars, part_rows=9)
    places = chosen(range(1, steps + 1), few=4)
    where = tmp_path / "to"
    where.mkdir()
    script = [sys.executable, "-c", KILLED_AT_EVERY_WRITE, tmp_path / "out", where, form, ending, repr([0, *places])]
    done = subprocess.run(script, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["0 0 0", *(f"{n} -9 0" for n in places)], done.stderr
    whole = files_of(where / f"0{ending}")
    assert whole
    for n in places:
        assert files_of(where / f"{n}{ending}") == whole
        killed = files_of(where / f"{n}-killed")
        seen = {name: data for name, data in killed.items() if not name.endswith(".tmp") and name != "_export.json"}
        assert seen.items() <= whole.items()
    survived(
        f"export to {form} killed before or after a write",
        "whole files only; the same command does the rest",
        len(places),
    )
