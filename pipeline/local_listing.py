"""Lists the files of this machine."""

from __future__ import annotations

import glob
import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import InputError
from pipeline.file_kinds import id_of, is_input, refuse_compressed, tables_if_alone
from pipeline.names import printable
from pipeline.shards import Shard


def list_local(name: str, ignored: Counter[str]) -> Iterator[Shard]:
    """The shards of a file, a folder or a pattern of this machine. Raises InputError."""
    path = Path(name).expanduser().absolute()
    if not os.path.lexists(path) and glob.has_magic(name):
        yield from _list_glob(path, ignored)
        return
    if not os.path.lexists(path):
        raise InputError(f"there is no {printable(name)}")
    if path.is_dir():
        relatives = ((file, os.path.relpath(file, path)) for file in _walk(str(path), set()))
        yield from tables_if_alone(
            (_local(file, relative) for file, relative in relatives if is_input(relative, ignored)), ignored
        )
    else:
        yield _local(str(path), path.name)


def _list_glob(pattern: Path, ignored: Counter[str]) -> Iterator[Shard]:
    """Image ids start where the wildcards do."""
    fixed = next(Path(*pattern.parts[:i]) for i, part in enumerate(pattern.parts) if glob.has_magic(part))
    matches = sorted(file for file in glob.glob(str(pattern), recursive=True) if not Path(file).is_dir())  # noqa: PTH207
    if not matches:
        raise InputError(f"nothing matches {printable(str(pattern))}")
    for file in matches:
        refuse_compressed(file)
        relative = os.path.relpath(file, fixed)
        if is_input(relative, ignored):
            yield _local(file, relative)


def _walk(folder: str, above: set[str]) -> Iterator[str]:
    """Files below a folder in the order of their names; follows links, but not in circles."""
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"cannot list {printable(folder)}: {error.strerror}") from error
    for entry in entries:
        if entry.is_dir():
            yield from _walk(entry.path, above | {real})
        else:
            yield entry.path


def _local(path: str, image_id: str) -> Shard:
    refuse_compressed(path)
    try:
        status = os.stat(path)  # noqa: PTH116 - Path would be made for each of millions
        size = status.st_size if stat.S_ISREG(status.st_mode) else -1
        return Shard(path, id_of(image_id), size, status.st_mtime_ns)
    except OSError:
        return Shard(path, id_of(image_id), -1, 0)  # a broken link, say: the reader says what is wrong
