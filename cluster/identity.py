"""The identity of a process: versions and code that affect captions. Driver and workers must have the same."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("cluster", "configs", "jobs", "model", "pipeline", "shardtalk")
"""The packages of a checkout whose code is hashed; in an installed wheel the last one contains the others."""
_COMPARED_PACKAGES = ("ray", "torch", "torchvision", "pyarrow", "pillow", "numpy")

Identity = Mapping[str, str]
"""Versions by name; for our own code, a hash."""


def identity() -> Identity:
    """Returns the identity of this process."""
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        **{name: _version(name) for name in _COMPARED_PACKAGES},
        "shardtalk's code": _hash_of_code(),
    }


def differences(here: Identity, there: Identity) -> list[str]:
    """Returns a phrase for each difference between two identities."""
    return [
        f"{name} is {here[name]} here and {there.get(name)} there" for name in here if here[name] != there.get(name)
    ]


def _version(name: str) -> str:
    try:
        return version(name).partition("+")[0]  # builds for CPU and GPU are the same version
    except PackageNotFoundError:
        return "missing"


def _hash_of_code() -> str:
    digest = hashlib.sha256()
    for folder in package_folders():
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{path.relative_to(folder.parent)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def package_folders() -> Iterator[Path]:
    """Yields the folders that this process imports our packages from; on a worker, each may be elsewhere."""
    for package in PACKAGES if __package__ == "cluster" else (__package__.partition(".")[0],):
        found = find_spec(package)
        yield from map(Path, found.submodule_search_locations or () if found else ())
