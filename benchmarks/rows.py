"""The rows of the benchmark. Each side runs in a process of its own, alternating with the other."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.pictures import make_folder
from model.captioner import checkpoint

CHECKOUT = Path(__file__).parents[1]
KIBIBYTES_PER_MIB = 1024
OBJECT_BYTES = 64 << 20


@dataclass(frozen=True)
class Result:
    """The measurements of both sides of a row."""

    ours: list[float]
    other: list[float]
    unit: str
    target: float
    """Target of the ratio."""
    more_is_better: bool
    note: str = ""

    @property
    def median_ours(self) -> float:
        """Median of Shardtalk's side."""
        return statistics.median(self.ours)

    @property
    def median_other(self) -> float:
        """Median of the other side."""
        return statistics.median(self.other)

    @property
    def ratio(self) -> float:
        """Ratio of Shardtalk's median to the other's."""
        return self.median_ours / self.median_other

    @property
    def is_met(self) -> bool:
        """True if the target is met."""
        return self.ratio >= self.target if self.more_is_better else self.ratio <= self.target


class Bench:
    """Makes the pictures and runs the processes of a benchmark run.

    Args:
        scratch: an empty folder.
        captioner: name or directory.
        repeats: measurements of each side.
        scale: factor of the numbers of images.
    """

    def __init__(self, scratch: Path, captioner: str, repeats: int, scale: float) -> None:
        self.scratch = scratch
        self.captioner = str(checkpoint.find(captioner).absolute())
        self.repeats = repeats
        self.scale = scale

    @cached_property
    def photos(self) -> Path:
        """2,000 JPEGs of 640×480."""
        return self.folder("photos", 2_000, width=640, height=480)

    def folder(self, name: str, count: int, *, width: int, height: int) -> Path:
        """Makes a folder of `scale` × `count` JPEGs."""
        return make_folder(self.scratch / name, max(96, round(count * self.scale)), width=width, height=height)

    def by_turns(self, ours: Callable[[], float], other: Callable[[], float]) -> tuple[list[float], list[float]]:
        """Measures both sides alternately, `repeats` times each."""
        pairs = [(ours(), other()) for _ in range(self.repeats)]
        return [a for a, _ in pairs], [b for _, b in pairs]

    def python(self, *arguments: object) -> str:
        """Runs a Python process in this checkout; returns its output."""
        command = [sys.executable, *map(str, arguments)]
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
        return done.stdout

    def reported(self, *arguments: object) -> dict[str, Any]:
        """Runs a Python process; returns the JSON on its last output line."""
        found: dict[str, Any] = json.loads(self.python(*arguments).splitlines()[-1])
        return found

    def seconds(self, *arguments: object) -> float:
        """Runs a Python process; returns its wall time."""
        started = time.perf_counter()
        self.python(*arguments)
        return time.perf_counter() - started

    def caption(self, *arguments: object) -> list[object]:
        """Returns the arguments of a complete caption job, on the local runner unless told otherwise."""
        runner = [] if "--runner" in arguments else ["--runner", "local"]
        return ["-m", "jobs.caption", *arguments, "--captioner", self.captioner, *runner, "--output", self.new_output()]

    def new_output(self) -> Path:
        """Returns the path of an output folder that does not exist."""
        output = self.scratch / "out"
        shutil.rmtree(output, ignore_errors=True)
        return output


def local(bench: Bench) -> Result:
    """Steady images/s of the local runner against the plain loop."""
    return _against_the_loop(bench, "local", target=0.95)


def local_expert(bench: Bench) -> Result:
    """As before, against a loop that keeps freed memory, as Shardtalk does."""
    return _against_the_loop(bench, "local", "keep", target=0.95)


def ray(bench: Bench) -> Result:
    """Steady images/s of the Ray runner against the plain loop; the note has the start-up time."""
    return _against_the_loop(bench, "ray", target=0.90)


def ray_expert(bench: Bench) -> Result:
    """As before, against a loop that keeps freed memory, as Shardtalk does."""
    return _against_the_loop(bench, "ray", "keep", target=0.90)


def ray_start(bench: Bench) -> Result:
    """Seconds of a whole job of 96 photos on Ray, most of it start-up, against a tuned script on Ray Data."""
    folder = make_folder(bench.scratch / "few_photos", 96, width=640, height=480)
    script = ("-m", "benchmarks.rivals.ray_data", folder, bench.captioner)
    times = bench.by_turns(
        lambda: bench.seconds(*bench.caption(folder, "--runner", "ray")),
        lambda: bench.seconds(*script, bench.new_output(), "ours"),
    )
    return Result(*times, "s", 1.2, more_is_better=False)


def _against_the_loop(bench: Bench, runner: str, *loop_options: str, target: float) -> Result:
    startups = []

    def ours() -> float:
        found = bench.reported("-m", "benchmarks.runner", bench.photos, *_job(bench, runner))
        startups.append(found["startup_s"])
        return float(found["images_per_s"])

    def loop() -> float:
        found = bench.reported("-m", "benchmarks.plain_loop", bench.photos, bench.captioner, "5", *loop_options)
        return float(found["images_per_s"])

    speeds = bench.by_turns(ours, loop)
    note = f"first rows after {statistics.median(startups):.1f} s"
    return Result(*speeds, "images/s", target, more_is_better=True, note=note)


def _job(bench: Bench, runner: str) -> list[object]:
    return ["--runner", runner, "--captioner", bench.captioner, "--search.beam_size", "5", "--output", "unused"]


def first_caption(bench: Bench) -> Result:
    """Seconds of a complete one-image job, against importing torch and loading the captioner."""
    photo = next(bench.photos.iterdir())
    load = "import sys, torch; from model.captioner import Captioner;Captioner.load(sys.argv[1])"
    times = bench.by_turns(
        lambda: bench.seconds(*bench.caption(photo)), lambda: bench.seconds("-c", load, bench.captioner)
    )
    return Result(*times, "s", 1.5, more_is_better=False)


def help_text(bench: Bench) -> Result:
    """Seconds of `shardtalk --help`, against one second."""
    times = [bench.seconds("-m", "jobs.cli", "--help") for _ in range(bench.repeats)]
    return Result(times, [1.0] * bench.repeats, "s", 1.0, more_is_better=False)


def beam(bench: Bench) -> Result:
    """Seconds of a whole job with beam 5, against greedy."""
    times = bench.by_turns(
        lambda: bench.seconds(*bench.caption(bench.photos, "--search.beam_size", 5)),
        lambda: bench.seconds(*bench.caption(bench.photos, "--search.method", "greedy")),
    )
    return Result(*times, "s", 2.0, more_is_better=False)


def frozen(bench: Bench) -> Result:
    """Images/s of the captioner as the local runner runs it, against the modules as training runs them."""
    return Result(*_captioner(bench, ("beam", "frozen"), ("beam", "trained")), "images/s", 2.0, more_is_better=True)


def captioner_beam(bench: Bench) -> Result:
    """Images/s of the captioner with beam 5, against greedy search."""
    return Result(*_captioner(bench, ("beam", "frozen"), ("greedy", "frozen")), "images/s", 0.87, more_is_better=True)


def _captioner(bench: Bench, ours: tuple[str, str], other: tuple[str, str]) -> tuple[list[float], list[float]]:
    def speed(way: tuple[str, str]) -> float:
        return float(bench.reported("-m", "benchmarks.captioner", bench.captioner, *way)["images_per_s"])

    return bench.by_turns(lambda: speed(ours), lambda: speed(other))


def decoding(bench: Bench) -> Result:
    """Images/s of the decode stage on one core, 640×480 to 288×288, against Pillow."""
    photos = bench.folder("decoding", 512, width=640, height=480)

    def speed(way: str) -> float:
        return float(bench.reported("-m", "benchmarks.decoding", photos, 288, way)["images_per_s"])

    return Result(
        *bench.by_turns(lambda: speed("stage"), lambda: speed("pillow")), "images/s", 1.8, more_is_better=True
    )


def vgg16(bench: Bench) -> Result:
    """Images/s of neuraltalk2's network on one core, against the one image/s on a CPU that its README states."""
    photos = bench.folder("vgg16", 96, width=640, height=480)
    speeds = [float(bench.reported("-m", "benchmarks.vgg16", photos)["images_per_s"]) for _ in range(bench.repeats)]
    return Result(speeds, [1.0] * bench.repeats, "images/s", 2.0, more_is_better=True)


def memory(bench: Bench) -> Result:
    """Peak memory of a job of 20,000 images, against one of 2,000."""
    few = bench.folder("few", 2_000, width=224, height=224)
    many = bench.folder("many", 20_000, width=224, height=224)
    peaks = [_peak_mib(bench.caption(folder)) for folder in (many, few)]
    return Result([peaks[0]], [peaks[1]], "MiB", 1.1, more_is_better=False)


def _peak_mib(arguments: list[object]) -> float:
    """Runs a Python process; returns its maximum resident set in MiB."""
    process = subprocess.Popen([sys.executable, *map(str, arguments)], cwd=CHECKOUT, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{arguments} failed with exit code {process.returncode}")
    return usage.ru_maxrss / KIBIBYTES_PER_MIB


def s3(bench: Bench) -> Result:
    """MiB/s of reading an object of 64 MiB by boto3, against the same reader on pyarrow's filesystem."""
    file, times = bench.scratch / "object", max(2, round(16 * bench.scale))
    file.write_bytes(os.urandom(OBJECT_BYTES))
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.range_server", file], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            endpoint = f"http://127.0.0.1:{int(server.stdout.readline())}"

            def read(way: str) -> float:
                return float(bench.reported("-m", "benchmarks.s3_reading", way, endpoint, times)["mib_per_s"])

            speeds = bench.by_turns(lambda: read("boto3"), lambda: read("pyarrow"))
            note = f"pyarrow's stream {read('stream'):.0f}"
        finally:
            server.kill()
    return Result(*speeds, "MiB/s", 0.9, more_is_better=True, note=note)


ROWS: dict[str, Callable[[Bench], Result]] = {
    "local": local,
    "local, expert": local_expert,
    "ray": ray,
    "ray, expert": ray_expert,
    "ray, start": ray_start,
    "first caption": first_caption,
    "help": help_text,
    "beam": beam,
    "captioner, frozen": frozen,
    "captioner, beam": captioner_beam,
    "decoding": decoding,
    "vgg16": vgg16,
    "memory": memory,
    "s3, boto3 and pyarrow": s3,
}
