"""`python -m benchmarks.rivals`: whole jobs, ours and others', by turns in one run; medians count.

"Whole" is images/s of the whole process, from its start to its end with the file on disk; "steady" is images/s after
the first quarter of the images. daft and transformers do not come with Shardtalk; rivals without them are skipped.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pyarrow.parquet as pq
from packaging.requirements import Requirement

from benchmarks.pictures import make_folder
from benchmarks.rivals.clock import VARIABLE, steady_images_per_s
from benchmarks.rivals.networks import BATCH_IMAGES
from model.captioner import checkpoint
from model.device import SINGLE_ARENA

CHECKOUT = Path(__file__).parents[2]
MIN_IMAGES = 4 * BATCH_IMAGES
GOALS = {"eager": 2.0, "ours": 1.15}
"""Smallest ratio of our speed to a rival's, by the rival's network."""

OFFLINE = {"DO_NOT_TRACK": "true", "HF_HUB_OFFLINE": "1"}
"""Keeps Daft and transformers from waiting for the network."""


@dataclass(frozen=True)
class Side:
    """One program with one network."""

    name: str
    module: str
    network: str
    """The script's last argument."""
    against: str = ""
    """Runner of ours that the rival is compared with; "" for our own sides."""
    requirement: str = ""
    """What to install, for packages that Shardtalk does not need."""
    in_threads: bool = False
    """True if it captions outside of the main thread, where our captioner needs glibc's single arena."""

    @property
    def is_installed(self) -> bool:
        """False if a package is missing, or another version of it is there."""
        if not self.requirement:
            return True
        needed = Requirement(self.requirement)
        try:
            return needed.specifier.contains(version(needed.name))
        except PackageNotFoundError:
            return False


@dataclass
class Speeds:
    """Measurements of a side in images/s."""

    whole: list[float] = field(default_factory=list)
    steady: list[float] = field(default_factory=list)
    captions: dict[str, str] = field(default_factory=dict)
    """Caption by file name, of the last run."""


OURS = [Side(runner, "ours", runner) for runner in ("local", "ray")]
RIVALS = [
    *(Side("plain_loop", "plain_loop", network, "local") for network in GOALS),
    *(Side("data_loader", "data_loader", network, "local") for network in GOALS),
    *(Side("daft", "daft_class", network, "local", "daft", in_threads=True) for network in GOALS),
    Side("transformers", "transformers_pipeline", "eager", "local", "transformers<5"),
    *(Side("ray_data", "ray_data", network, "ray", in_threads=True) for network in GOALS),
]


def main() -> int:
    """Measures all sides and prints a table; returns 1 if a goal is missed."""
    names = list(dict.fromkeys(side.name for side in RIVALS))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rivals", description=__doc__)
    parser.add_argument("--only", choices=names, nargs="+", default=names, help="these rivals")
    parser.add_argument("--images", type=int, default=256, help="number of JPEGs of 640×480")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each side")
    parser.add_argument("--captioner", default="flickr8k-mobilenet-v2", help="name or directory of a captioner")
    options = parser.parse_args()
    if options.images < MIN_IMAGES:
        parser.error(f"--images is {options.images}; steady states need {MIN_IMAGES}")
    rivals = [side for side in RIVALS if side.name in options.only]
    for missing in dict.fromkeys(side.requirement for side in rivals if not side.is_installed):
        print(f"skipped: uv pip install '{missing}' (or into a folder in PYTHONPATH) adds this rival")
    rivals = [side for side in rivals if side.is_installed]
    ours = [side for side in OURS if side.network in {rival.against for rival in rivals}]
    captioner = checkpoint.find(options.captioner).absolute()
    with tempfile.TemporaryDirectory() as scratch:
        photos = make_folder(Path(scratch) / "photos", options.images, width=640, height=480)
        speeds = {side: Speeds() for side in [*ours, *rivals]}
        for _ in range(options.repeats):
            for side, found in speeds.items():
                measure(side, photos, captioner, Path(scratch), found)
                shown = f"{side.name}, {side.network}: whole {found.whole[-1]:.1f}, steady {found.steady[-1]:.1f}"
                print(f"{shown} images/s", file=sys.stderr, flush=True)
    print(f"{options.images} photos, {os.cpu_count()} cores; {versions()}")
    return 0 if print_table(speeds) else 1


def measure(side: Side, photos: Path, captioner: Path, scratch: Path, speeds: Speeds) -> None:
    """Runs a side once. Raises RuntimeError if it fails or leaves out a photo."""
    clock, output = scratch / "clock", scratch / "output"
    clock.unlink(missing_ok=True)
    shutil.rmtree(output) if output.is_dir() else output.unlink(missing_ok=True)
    arguments = [str(photos), str(captioner), str(output), side.network]
    command = [sys.executable, "-m", f"benchmarks.rivals.{side.module}", *arguments]
    environment = {**os.environ, VARIABLE: str(clock), **OFFLINE}
    if side.in_threads and side.network == "ours":
        environment |= SINGLE_ARENA
    began = time.perf_counter()
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{side.name}, {side.network}, failed:\n{done.stderr}")
    table = pq.read_table(output)
    key = "image_id" if "image_id" in table.column_names else "path"
    names = [Path(name).stem for name in table[key].to_pylist()]
    speeds.captions = dict(zip(names, table["caption"].to_pylist(), strict=True))
    count = len(list(photos.iterdir()))
    if len(names) != count or len(speeds.captions) != count or None in speeds.captions.values():
        raise RuntimeError(f"{side.name}, {side.network}, wrote {len(names)} rows for {count} photos")
    speeds.whole.append(count / seconds)
    speeds.steady.append(steady_images_per_s(clock))


def print_table(speeds: dict[Side, Speeds]) -> bool:
    """Prints a line a side; returns False if a goal is missed."""
    print("| | network | whole | steady | ours/theirs, whole | … steady | goal | captions as ours |")
    print("|---|---|---|---|---|---|---|---|")
    ours = {side.network: found for side, found in speeds.items() if not side.against}
    met = True
    for side, found in speeds.items():
        whole, steady = statistics.median(found.whole), statistics.median(found.steady)
        if not side.against:
            print(f"| Shardtalk, {side.name} | | {whole:.1f} | {steady:.1f} | | | | |")
            continue
        own = ours[side.against]
        ratios = [statistics.median(own.whole) / whole, statistics.median(own.steady) / steady]
        goal = GOALS[side.network]
        shown = " | ".join(f"{ratio:.2f}" + (" MISSED" if ratio < goal else "") for ratio in ratios)
        met &= min(ratios) >= goal
        same = sum(own.captions[name] == caption for name, caption in found.captions.items())
        network = "its own" if side.name == "transformers" else side.network
        print(f"| {side.name} | {network} | {whole:.1f} | {steady:.1f} | {shown} | ≥ {goal:g} | {same} |")
    return met


def versions() -> str:
    """Names the versions that count."""
    found = [f"Python {platform.python_version()}"]
    for package in ("torch", "ray", "daft", "transformers"):
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    return ", ".join(found)


if __name__ == "__main__":
    sys.exit(main())
