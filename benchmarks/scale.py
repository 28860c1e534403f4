"""Runs the job on a million images with a stub captioner: memory growth, planning time, the cost of a kill.

`python -m benchmarks.scale` prints a table; docs/scale.md has one. Images are a pixel each and all captions are
the same, so what remains is our own work and Ray's: reading tars, moving rows, committing, planning.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
from PIL import Image

import pipeline.inference.ray_runner
from benchmarks.stubs import StubCaption, make_captioner
from jobs import cli
from pipeline.inference.ray_runner import SpanDatasource
from pipeline.inputs.listing import list_inputs
from pipeline.output.commit_log import CommitLog
from pipeline.read_options import DEFAULTS
from pipeline.readers.reader import read
from pipeline.storage.folder import Folder

CHECKOUT = Path(__file__).parents[1]
MIB = 1 << 20
MANY_SHARDS = 100_000
EVERY_S = 1.0
"""Seconds between two samples of memory use."""


class CountedRead:
    """`source.read` that records how many bytes it has read. Takes its place in `ray_runner`."""

    def __init__(self, notes: str) -> None:
        self._notes = notes

    def __call__(self, *arguments: Any, **options: Any) -> Iterator[pa.Table]:
        """As `read`."""
        for table in read(*arguments, **options):
            with Path(self._notes, str(os.getpid())).open("a") as file:
                file.write(f"{sum(table['num_bytes'].to_pylist())}\n")
            yield table


def job(notes: str, arguments: list[str]) -> int:
    """Runs the caption job with the stubs in place; returns its exit code."""
    with mock.patch.multiple(pipeline.inference.ray_runner, CaptionActor=StubCaption, read=CountedRead(notes)):
        return cli.main(["caption", *arguments])


class Simulation:
    """A folder of a million images, and jobs on them.

    Args:
        scratch: folder for inputs and outputs.
        shards: number of tars.
        samples: images per tar.
        bytes_each: size of an image file.
    """

    def __init__(self, scratch: Path, shards: int, samples: int, bytes_each: int) -> None:
        self.scratch, self.shards, self.samples = scratch, shards, samples
        self.image_bytes = shards * samples * bytes_each
        self.inputs, self.captioner = scratch / "in", scratch / "stub"
        make_shards(self.inputs, shards, samples, bytes_each)
        make_captioner(self.captioner)

    def start(self, name: str) -> subprocess.Popen[str]:
        """Starts the job with output `name`."""
        notes = self.scratch / f"{name}.notes"
        notes.mkdir(exist_ok=True)
        usual = [f"{self.inputs}/*.tar", "--output", self.scratch / name, "--captioner", self.captioner]
        command = [sys.executable, "-m", "benchmarks.scale", "--job", notes, *usual, "--runner", "ray"]
        return subprocess.Popen([*map(str, command)], cwd=CHECKOUT, stderr=subprocess.PIPE, text=True)

    def rows(self, name: str) -> int:
        """Returns the number of rows committed so far."""
        return CommitLog.load(Folder(str(self.scratch / name))).rows

    def bytes_read(self, name: str) -> int:
        """Returns the bytes of encoded images that all jobs with this output have read."""
        notes = (self.scratch / f"{name}.notes").iterdir()
        return sum(int(line) for note in notes for line in note.read_text().split("\n")[:-1])


def make_shards(folder: Path, shards: int, samples: int, bytes_each: int) -> None:
    """Makes tars that are hard links to one file. Image files are padded with zeros."""
    folder.mkdir(parents=True)
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "PNG")
    data = buffer.getvalue().ljust(bytes_each, b"\0")
    first = folder / "000000.tar"
    with tarfile.open(first, "w") as tar:
        for i in range(samples):
            info = tarfile.TarInfo(f"{i:06}.png")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    for i in range(1, shards):
        os.link(first, folder / f"{i:06}.tar")


def anonymous_bytes(pid: int) -> int:
    """Returns the anonymous memory of a process, without the object store; 0 if the process is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return int(status.partition("RssAnon:")[2].split()[0]) << 10 if "RssAnon:" in status else 0


def workers() -> Iterator[int]:
    """Yields the process numbers of Ray workers."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cmdline").read_bytes().startswith(b"ray::"):
                    yield int(entry.name)
            except OSError:
                continue


def watch(simulation: Simulation, name: str, process: subprocess.Popen[str]) -> list[tuple[int, int, int]]:
    """Samples (rows committed, bytes of the driver, bytes of the largest worker) until the job ends."""
    samples = []
    while process.poll() is None:
        sample = simulation.rows(name), anonymous_bytes(process.pid), max(map(anonymous_bytes, workers()), default=0)
        samples.append(sample)
        threading.Event().wait(EVERY_S)
    return samples


def growth(samples: list[tuple[int, int, int]], column: int, rows: int) -> tuple[float, float]:
    """Returns the peaks in MiB during the first and the last quarter of the rows."""
    quarters = [
        [s[column] for s in samples if low * rows < s[0] <= high * rows] for low, high in ((0, 0.25), (0.75, 1))
    ]
    first, last = (max(quarter) / MIB for quarter in quarters)
    return first, last


def measure_planning(simulation: Simulation) -> None:
    """Measures listing and planning, and reading the records of a finished job."""
    folder = simulation.scratch / "many"
    folder.mkdir()
    first = simulation.inputs / "000000.tar"
    for i in range(MANY_SHARDS):
        (folder / f"{i:06}.tar").write_bytes(b"") if i else os.link(first, folder / "000000.tar")
    began = time.perf_counter()
    spans = list(CommitLog().remaining_work(list_inputs([str(folder)]).shards))
    source = SpanDatasource(spans, wanted=8, batch_size=32, options=DEFAULTS)
    source.get_read_tasks(len(source.groups))
    show(f"planning {MANY_SHARDS:,} shards", f"{time.perf_counter() - began:.2f} s", "< 30 s")
    began = time.perf_counter()
    shards = list_inputs([f"{simulation.inputs}/*.tar"]).shards
    listed = time.perf_counter()
    commit_log = CommitLog.load(Folder(str(simulation.scratch / "whole")))
    left = list(commit_log.remaining_work(shards))
    seconds = time.perf_counter() - began
    assert not left
    per_thousand = seconds * 1000 / simulation.shards
    note = f"{len(commit_log.commits)} records; the listing {listed - began:.2f} s of it"
    show("commit log and plan, per 1,000 shards", f"{per_thousand:.2f} s", f"< 1 s ({note})")


def measure_whole(simulation: Simulation) -> None:
    """Measures a complete job: its speed, and the growth of its memory."""
    began = time.perf_counter()
    process = simulation.start("whole")
    samples = watch(simulation, "whole", process)
    seconds, rows = time.perf_counter() - began, simulation.rows("whole")
    lines = process.communicate()[1].splitlines()
    assert process.returncode == 0 and rows == simulation.shards * simulation.samples, lines[-5:]
    show("rows", f"{rows:,}", f"in {seconds:.0f} s with start-up: {rows / seconds:,.0f} rows/s")
    for who, column in (("driver", 1), ("largest worker", 2)):
        first, last = growth(samples, column, rows)
        show(
            f"peak memory, {who}",
            f"{last:.0f} MiB",
            f"{last / first:.2f} of the first quarter's {first:.0f} MiB; < 1.1",
        )


def measure_kill(simulation: Simulation) -> None:
    """Measures what is read again after a job is killed at half of its rows."""
    process, half = simulation.start("killed"), simulation.shards * simulation.samples // 2
    while simulation.rows("killed") < half and process.poll() is None:
        threading.Event().wait(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    committed = simulation.rows("killed")
    again = simulation.start("killed")
    lines = again.communicate()[1].splitlines()
    assert again.returncode == 0, lines[-5:]
    total = simulation.image_bytes
    reread = (simulation.bytes_read("killed") - total) / total
    show("read again after a kill", f"{reread:.2%}", f"< 1 % of the bytes; {committed:,} rows were committed")
    assert cli.main(["verify", str(simulation.scratch / "killed"), f"{simulation.inputs}/*.tar"]) == 0


def show(what: str, value: str, note: str) -> None:
    """Prints a row of the table."""
    print(f"| {what} | {value} | {note} |", flush=True)


def main() -> int:
    """Runs the simulation, or one of its jobs."""
    if sys.argv[1:2] == ["--job"]:
        return job(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=1000, help="of each shard")
    parser.add_argument("--image_bytes", type=int, default=16 << 10, help="of each sample")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        simulation = Simulation(Path(scratch), options.shards, options.samples, options.image_bytes)
        for measure in (measure_whole, measure_planning, measure_kill):
            measure(simulation)
    return 0


if __name__ == "__main__":
    sys.exit(main())
