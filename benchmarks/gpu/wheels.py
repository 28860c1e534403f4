"""Installs wheels for packages that the machine lacks, without a network."""

from __future__ import annotations

import compileall
import subprocess
import sys
import zipfile
from itertools import groupby
from pathlib import Path


class WheelError(Exception):
    """Wheels that cannot be installed."""


def install(folder: Path, site: Path) -> list[str]:
    """Installs all wheels of a folder into `site`.

    Args:
        folder: has `*.whl`, and parts of larger wheels (`*.whl.00`, `*.whl.01`, …), which are joined.
        site: new folder for PYTHONPATH.

    Returns:
        The names of wheels skipped since a part is missing.

    Raises WheelError if there are none, or they are for another Python.
    """
    joined, broken = _joined(folder, site.with_suffix(".joined"))
    wheels = [*sorted(folder.glob("*.whl")), *joined]
    if not wheels:
        raise WheelError(f"there are no wheels in {folder}")
    command = [sys.executable, "-m", "pip", "--isolated", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--target", str(site), *map(str, wheels)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise WheelError(f"the wheels in {folder} cannot be installed: {(errors or [done.stderr.strip()])[-1]}")
    compileall.compile_dir(site, quiet=2, workers=0)  # on all cores, before Ray starts twenty processes
    return broken


def _joined(folder: Path, into: Path) -> tuple[list[Path], list[str]]:
    """Joins the wheels that come in parts; returns them, and the names of incomplete ones."""
    whole, broken = [], []
    for name, parts in groupby(sorted(folder.glob("*.whl.[0-9][0-9]")), key=lambda part: part.stem):
        into.mkdir(exist_ok=True)
        wheel = into / name
        wheel.write_bytes(b"".join(part.read_bytes() for part in parts))
        if _is_whole(wheel):
            whole.append(wheel)
        else:
            broken.append(name)
    return whole, broken


def _is_whole(wheel: Path) -> bool:
    try:
        with zipfile.ZipFile(wheel) as file:
            return file.testzip() is None
    except zipfile.BadZipFile:
        return False
