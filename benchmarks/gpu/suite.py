"""Runs the project's tests on this machine: those marked `cuda`, and the other tests of the model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.gpu.bench import SPARE_S, Bench

CHECKOUT = Path(__file__).parents[2]
MARK = "mark.cuda"
MOST_WORKERS = 8


def marked(bench: Bench) -> None:
    """Runs the tests that compare the device with the CPU."""
    folders = (CHECKOUT / "tests" / "pipeline", CHECKOUT / "tests" / "model")
    files = [path for folder in folders for path in sorted(folder.rglob("test_*.py")) if MARK in path.read_text()]
    _pytest(bench, files, "-m", "cuda")


def others(bench: Bench) -> None:
    """Runs the other tests of the model, on this machine's versions and processor."""
    files = sorted((CHECKOUT / "tests" / "model").rglob("test_*.py"))
    workers = min(MOST_WORKERS, bench.cores)
    parallel = ["-n", str(workers)] if find_spec("xdist") and workers > 1 and bench.scale >= 1 else []
    _pytest(bench, files, "-m", "not cuda", *parallel)


def _pytest(bench: Bench, files: Sequence[Path], *options: str) -> None:
    """Runs the tests in the files, or at a small scale in the first of them."""
    found = bench.scratch / "tests.xml"
    found.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={found}"]
    command += [f"--basetemp={bench.scratch / 'pytest'}", "--durations=5", *options]
    command += map(str, files[: max(1, round(bench.scale * len(files)))])
    environment = os.environ | {"SHARDTALK_TEST_DEVICE": bench.device.type}
    process = subprocess.Popen(command, cwd=CHECKOUT, env=environment)
    try:
        process.wait(max(0.0, bench.left_s - SPARE_S))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # pytest then writes the results so far
        process.wait()
        bench.note("no time was left for all tests", "incomplete")
    if not found.exists():
        bench.note("pytest ended without results; the log says why", "failed")
        return
    _report(bench, found)


def _report(bench: Bench, found: Path) -> None:
    counts = Counter[str]()
    for case in ElementTree.parse(found).iter("testcase"):
        problem = next((child for child in case if child.tag in ("failure", "error")), None)
        if problem is not None:
            message = (problem.get("message") or "").splitlines()[:1]
            bench.note(f"{case.get('classname')}::{case.get('name')}: {' '.join(message)}", "failed")
        counts["failed" if problem is not None else "skipped" if case.find("skipped") is not None else "passed"] += 1
    for outcome in ("passed", "failed", "skipped"):
        bench.figure(outcome, counts[outcome], "tests")
    if not counts["passed"]:
        bench.note("no test passed", "failed")
