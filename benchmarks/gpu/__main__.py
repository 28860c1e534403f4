"""`python -m benchmarks.gpu --output DIR`: tests and measures Shardtalk on a GPU, the most important rows first.

Each row runs in a process of its own with a time limit, so a failure does not affect the others. DIR gets results.json,
which is complete after each row, table.md, and log.txt with the output of the processes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from benchmarks.gpu.plan import ROWS, Row, limit_s
from benchmarks.gpu.results import Results, RowResult
from benchmarks.gpu.wheels import WheelError, install
from model.errors import ModelError

CHECKOUT = Path(__file__).parents[2]
FINISH_S, END_S = 3.0, 5.0
"""Seconds reserved for the end of the command; seconds between SIGTERM and SIGKILL of a row's process."""
SCRATCH_BYTES = 4 << 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the rows; returns 1 if one failed, 2 for a usage error."""
    began = time.monotonic()
    parser = _parser()
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # stops the row's process, too
    with contextlib.ExitStack() as stack:
        try:
            options.output.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix="shardtalk-gpu-", dir=_roomy(options.scratch, options.output)))
            stack.callback(shutil.rmtree, scratch, ignore_errors=True)
            environment, machine = _environment(options.wheels, scratch), _machine(options.device)
        except (OSError, WheelError, ModelError) as error:
            parser.error(str(error))
        results = Results(machine, _described(options), datetime.now(UTC).isoformat(timespec="seconds"))
        _run(results, options, scratch, environment, began)
    return int(any(row.status == "failed" for row in results.rows))


def _parser() -> argparse.ArgumentParser:
    rows = "\n".join(f"  {name:20} about {row.cost_s:3.0f} s  {row.what}" for name, row in ROWS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        epilog=f"rows:\n{rows}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--only", nargs="+", choices=ROWS, metavar="ROW", help="only these rows")
    parser.add_argument("--budget_s", type=float, default=480.0, help="seconds for all rows (%(default)g)")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of images, batches, seconds; 0.01 for a CPU")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to use (benchmarks/gpu_wheels.txt)")
    parser.add_argument("--scratch", type=Path, help="folder on a local disk, with 4 GiB or more; else the system's")
    return parser


def _described(options: argparse.Namespace) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}


def _run(
    results: Results, options: argparse.Namespace, scratch: Path, environment: Mapping[str, str], began: float
) -> None:
    """Runs the rows in order, and writes the table at the end or when the command is stopped."""
    names = [name for name in ROWS if not options.only or name in options.only]
    usual = ["--device", options.device, "--scale", str(options.scale), "--scratch", str(scratch)]
    command = [sys.executable, "-m", "benchmarks.gpu.bench", *usual]
    try:
        with (options.output / "log.txt").open("w+", encoding="utf-8", errors="replace") as log:
            for i, name in enumerate(names):
                left_s = options.budget_s - FINISH_S - (time.monotonic() - began)
                limit = limit_s([ROWS[other] for other in names[i:]], left_s)
                if limit:
                    findings = scratch / f"{name}.findings"
                    result = _measured(name, [*command, ROWS[name].measure], findings, environment, limit, log)
                else:
                    result = _skipped(name, ROWS[name], left_s)
                results.rows.append(result)
                results.seconds = round(time.monotonic() - began, 1)
                results.save(options.output / "results.json")
                print(f"{name}: {result.status} in {result.seconds:.0f} s", *result.notes, sep="\n  ", flush=True)
    finally:
        print(f"\n{results.table()}", flush=True)
        (options.output / "table.md").write_text(results.table() + "\n", encoding="utf-8")


def _skipped(name: str, row: Row, left_s: float) -> RowResult:
    return RowResult(name, "skipped", notes=[f"takes about {row.cost_s:.0f} s; {max(0.0, left_s):.0f} are left"])


def _measured(  # noqa: PLR0917
    name: str, command: list[str], findings: Path, environment: Mapping[str, str], limit: float, log: TextIO
) -> RowResult:
    """Runs the process of a row and collects its findings, partial ones if it failed or timed out."""
    result, began = RowResult(name), time.monotonic()
    log.write(f"\n=== {name}, at most {limit:.0f} s\n")
    log.flush()
    before = log.tell()
    command = [*command, "--limit_s", str(limit), "--findings", str(findings)]
    process = subprocess.Popen(
        command,
        cwd=CHECKOUT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        _end(process)
    result.seconds = round(time.monotonic() - began, 1)
    if findings.exists():
        result.add(findings.read_text(encoding="utf-8"))
    log.seek(before)
    lines = [line for line in log.read().splitlines() if line.strip()]
    log.seek(0, os.SEEK_END)
    if code is None:
        result.update_status("incomplete", f"ended after its {limit:.0f} s")
    elif code:
        result.update_status("failed", f"exit code {code}: {lines[-1] if lines else 'no output'}")
    return result


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stops a process and its descendants, by SIGTERM, then by SIGKILL."""
    for asked in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, asked)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_S)


def _roomy(given: Path | None, output: Path) -> Path:
    """Chooses the parent of the scratch folder: as given, else the temporary folder if it has room, else the output."""
    if given:
        return given
    usual = Path(tempfile.gettempdir())
    return usual if shutil.disk_usage(usual).free >= SCRATCH_BYTES else output


def _environment(wheels: Path | None, scratch: Path) -> dict[str, str]:
    """Builds the environment of the rows' processes: import paths of checkout and wheels, writable compiler caches."""
    site = scratch / "site"
    if wheels:
        for name in install(wheels, site):
            print(f"skipped {name}: a part of it is missing", flush=True)
    paths = [str(CHECKOUT), str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"),
        "TRITON_CACHE_DIR": str(scratch / "triton"),
    }


def _machine(device: str) -> dict[str, Any]:
    """Describes the machine. Raises OptionError for an unavailable device."""
    import torch

    from model.device import choose_device

    choose_device(device)
    cores = len(os.sched_getaffinity(0))
    known = {"device": platform.machine(), "cores": cores, "python": platform.python_version()}
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        known |= {"device": card.name, "memory": f"{card.total_memory / 2**30:.0f} GiB", "cuda": torch.version.cuda}
    return known | {"torch": torch.__version__}


if __name__ == "__main__":
    sys.exit(main())
