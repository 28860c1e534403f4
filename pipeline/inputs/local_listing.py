"""Lists local files as shards."""

from __future__ import annotations

import glob
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError
from pipeline.file_types import LINKS, check_readable, image_id_of, is_input, matches_extension
from pipeline.filenames import printable
from pipeline.inputs.tables_in_folders import without_metadata_tables
from pipeline.read_options import ReadOptions
from pipeline.shards import LISTS, Shard

Identity = tuple[int, int]
"""Device and inode of a folder."""


def list_local(name: str, ignored: Counter[str], options: ReadOptions) -> Iterator[Shard]:
    """Yields the shards of a local file, folder or glob pattern. Raises InputError."""
    path = Path(name).expanduser().absolute()
    if not os.path.lexists(path) and glob.has_magic(name):
        yield from _list_glob(path, ignored, options)
        return
    if not os.path.lexists(path):
        raise InputError(f"{printable(name)} does not exist")
    if os.path.isdir(path):  # noqa: PTH112 - Path's raises without permission
        yield from without_metadata_tables(_in_folder(str(path), ignored), ignored, options)
    else:
        check_readable(str(path))
        yield _shard(str(path), path.name)


def _list_glob(pattern: Path, ignored: Counter[str], options: ReadOptions) -> Iterator[Shard]:
    """Yields the shards that match a pattern; their image_id is the path from the first wildcard on."""
    fixed = next(Path(*pattern.parts[:i]) for i, part in enumerate(pattern.parts) if glob.has_magic(part))
    matches = sorted(file for file in glob.glob(str(pattern), recursive=True) if not os.path.isdir(file))  # noqa: PTH112, PTH207
    if not matches:
        raise InputError(f"nothing matches {printable(str(pattern))}")
    are_lists = matches_extension(pattern.name, LISTS)
    relatives = ((file, os.path.relpath(file, fixed)) for file in matches)
    found = (_shard(file, relative) for file, relative in relatives if are_lists or is_input(relative, ignored))
    yield from (
        found if matches_extension(pattern.name, ["parquet"]) else without_metadata_tables(found, ignored, options)
    )


def _in_folder(folder: str, ignored: Counter[str]) -> Iterator[Shard]:
    """Yields the shards below a folder. A folder that cannot be listed becomes a shard that cannot be read."""
    if not _entries(folder):
        return
    for path, is_folder in _walk(folder, ignored):
        relative = os.path.relpath(path, folder)
        if is_folder:
            yield Shard(path, printable(f"{relative}/"), -1, 0)
        elif is_input(relative, ignored):
            yield _shard(path, relative)


@dataclass(slots=True)
class _Folder:
    """A folder whose entries are being listed."""

    entries: Iterator[os.DirEntry[str]]
    identity: Identity
    linked: bool
    """True if it, or a folder above it, was reached by a link."""


def _walk(top: str, ignored: Counter[str]) -> Iterator[tuple[str, bool]]:
    """Yields the files below a folder in order of name, and, marked True, folders that cannot be listed.

    Links to folders are followed, except to a folder above. Within a folder reached by a link, links to folders that
    were already listed are skipped: otherwise folders that link to each other would be listed along every path.
    """
    identity = _identity(top)
    stack, above, listed = [_Folder(iter(_entries(top)), identity, linked=False)], {identity}, {identity}
    while stack:
        folder = stack[-1]
        entry = next(folder.entries, None)
        if entry is None:
            above.discard(stack.pop().identity)
            continue
        if not _is_folder(entry):
            yield entry.path, False
            continue
        is_link = entry.is_symlink()
        try:
            identity = _identity(entry.path)
            if identity in above or (is_link and folder.linked and identity in listed):
                ignored[LINKS] += 1
                continue
            entries = iter(_entries(entry.path))
        except InputError:
            yield entry.path, True
            continue
        stack.append(_Folder(entries, identity, linked=folder.linked or is_link))
        above.add(identity)
        listed.add(identity)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"cannot list {printable(folder)}: {error.strerror}") from error


def _identity(folder: str) -> Identity:
    try:
        status = os.stat(folder)  # noqa: PTH116
    except OSError as error:
        raise InputError(f"cannot list {printable(folder)}: {error.strerror}") from error
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # e.g. a link to itself
        return False


def _shard(path: str, relative: str) -> Shard:
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path for each of millions costs time
        size = status.st_size if stat.S_ISREG(status.st_mode) else -1
        return Shard(path, image_id_of(relative), size, status.st_mtime_ns)
    except OSError:
        return Shard(path, image_id_of(relative), -1, 0)  # e.g. a broken link: the reader reports the error
