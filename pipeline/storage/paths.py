"""Normalizes paths and file URLs, so that each file has one name."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

from pipeline.errors import InputError

_FILE = "file://"


def normalize_path(name: str) -> str:
    """Returns `/in` for `file:///in` and `/x/../in`; other names unchanged.

    Links before a `..` are resolved, as the parent of a link's target is not the folder of the link. Raises InputError
    for a file URL of another machine.
    """
    if name.lower().startswith(_FILE):
        host, slash, path = name[len(_FILE) :].partition("/")
        if host not in ("", "localhost"):
            raise InputError(f"{name} is on another machine; mount its folder here, and give the path")
        name = slash + path
        if not os.path.lexists(name):
            name = unquote(name, errors="surrogateescape")
    if "://" in name or ".." not in name.split("/"):
        return name
    parts = Path(name).expanduser().absolute().parts
    after = len(parts) - parts[::-1].index("..")
    return str(Path(os.path.realpath(Path(*parts[:after])), *parts[after:]))
