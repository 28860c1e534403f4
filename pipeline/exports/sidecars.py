"""Exports a small file per caption. What exists already stays as it is, so that no file of the user is overwritten."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from pipeline.exports.rows import Row
from pipeline.storage.filesystems import CONNECTIONS, is_remote
from pipeline.storage.folder import Folder
from pipeline.storage.prefetch import prefetch_map
from pipeline.storage.shard_file import open_regular

Result = Literal["written", "present", "kept"]


@dataclass
class SidecarCounts:
    """The numbers of files."""

    written: int = 0
    present: int = 0
    """Files that were there with the same contents: of an earlier run."""
    kept: int = 0
    """Files that were there with other contents, and were not overwritten."""
    first_kept: str = ""


def write_sidecars(
    folder: Folder, parts: Iterable[list[Row]], *, name: Callable[[Row], str], encode: Callable[[str], bytes]
) -> SidecarCounts:
    """Writes a file per row, several at a time. Raises WriteError.

    Args:
        folder: the destination.
        parts: rows with captions.
        name: returns the name of a row's file, relative to the folder.
        encode: returns the contents for a caption.
    """
    counts = SidecarCounts()

    def write(row: Row) -> tuple[str, Result]:
        relative = name(row)
        return relative, create_or_keep(folder, relative, encode(row["caption"]))

    rows = (row for part in parts for row in part)
    with contextlib.closing(prefetch_map(write, rows, threads=CONNECTIONS, depth=2 * CONNECTIONS)) as results:
        for relative, result in results:
            counts.written += result == "written"
            counts.present += result == "present"
            counts.kept += result == "kept"
            counts.first_kept = counts.first_kept or (relative if result == "kept" else "")
    return counts


def sweep(folder: Folder, extension: str) -> None:
    """Deletes the temporary files that a killed export of this extension left in a local folder, and below it."""
    name = re.compile(rf"\..+\.{re.escape(extension)}-[0-9a-f]{{32}}\.tmp")  # of `Folder.create`
    if not is_remote(folder.url):
        for place, _, files in os.walk(folder.path):
            for file in filter(name.fullmatch, files):
                Path(place, file).unlink(missing_ok=True)


def create_or_keep(folder: Folder, name: str, data: bytes) -> Result:
    """Creates a file atomically unless there is one; says what was there. Raises WriteError."""
    there = partial(_read, folder, name, len(data) + 1)
    found = there()
    if found is None:
        try:
            if not folder.create(name, data):
                folder.write(name, data)
            return "written"
        except FileExistsError:  # a link that leads to nothing, a pipe, or another process was faster
            found = there()
    return "present" if found == data else "kept"


def _read(folder: Folder, name: str, size: int) -> bytes | None:
    """Returns the beginning of a file; None if there is no regular file of this name."""
    try:
        with open_regular(f"{folder.url}/{name}") as file:
            return file.read(size)
    except FileNotFoundError:
        return None
    except PermissionError:  # S3 answers so for an object that does not exist, too, if listing is not allowed
        return None
    except (NotADirectoryError, IsADirectoryError):
        return bytes(size)  # equals no contents of fewer bytes
