"""What the user names → shards: every file that holds images, with what identifies it.

A shard is a tar, a Parquet file, or an image file, which is a shard with one image. Only names, sizes and times are
read here.
"""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import pyarrow.fs as pafs

from pipeline.ahead import mapped_ahead
from pipeline.errors import InputError
from pipeline.names import EXTENSIONS, printable
from pipeline.storage import CONNECTIONS, filesystem, is_remote

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_NUMBERS = re.compile(r"(\d+)\.\.(\d+)")


class Form(StrEnum):
    """What a shard is; the value is the extension of those that hold many images."""

    IMAGE = "image"
    TAR = "tar"
    PARQUET = "parquet"


@dataclass(frozen=True, slots=True)
class Shard:
    """A file that holds images."""

    path: str
    """Absolute path, which need not be UTF-8, or URL."""
    image_id: str
    """Of an image file: its row's; empty for others, in which keys name the rows."""
    size: int
    """Bytes; -1 where it cannot be looked at."""
    mtime_ns: int

    @property
    def form(self) -> Form:
        """What is in it."""
        return Form.IMAGE if self.image_id else Form(self.path.lower().rpartition(".")[2])

    @property
    def id(self) -> str:
        """Hash of path, size and time of change, in 16 hexadecimal digits. The ledger's name for the shard."""
        identity = f"{self.path}\n{self.size}\n{self.mtime_ns}"
        return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:16]


@dataclass
class Listing:
    """The shards of a job, in the order in which they were named, each once."""

    shards: list[Shard] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    """Files in input folders and globs that are hidden, or neither images nor tars, by extension."""


def list_inputs(inputs: Iterable[str]) -> Listing:
    """Lists folders (with all below them), images, tars, Parquet files, globs and braces such as `{0000..0099}.tar`.

    Raises InputError for what does not exist or holds no image, and for two images that would get the same image_id.
    """
    listing = Listing()
    paths: set[str] = set()
    ids: dict[str, str] = {}
    for given in inputs:
        found = False
        for shard in (shard for name in _looked_up(expand_braces(given)) for shard in _list(*name, listing.ignored)):
            found = True
            if shard.path in paths:
                continue
            paths.add(shard.path)
            if shard.image_id and ids.setdefault(shard.image_id, shard.path) != shard.path:
                raise InputError(
                    f"{printable(ids[shard.image_id])} and {printable(shard.path)} would both be image_id"
                    f" {shard.image_id!r}; caption the folder above them, or the two apart"
                )
            listing.shards.append(shard)
        if not found:
            raise InputError(f"{printable(given)} holds no images")
    return listing


def expand_braces(text: str) -> list[str]:
    """`a{1,2}` → a1, a2; `{08..11}` → 08, 09, 10, 11. Other text as it is."""
    match = re.search(r"\{([^{}]*)\}", text)
    if not match:
        return [text]
    numbers = _NUMBERS.fullmatch(match[1])
    if numbers:
        first, last = int(numbers[1]), int(numbers[2])
        choices = [f"{n:0{len(numbers[1])}d}" for n in range(first, last + 1)]
    elif "," in match[1]:
        choices = match[1].split(",")
    else:
        return [text]
    return [name for choice in choices for name in expand_braces(text[: match.start()] + choice + text[match.end() :])]


def _looked_up(names: list[str]) -> Iterator[tuple[str, pafs.FileInfo | None]]:
    """Names with what a store says of them; it is asked for many at a time. Raises InputError."""
    infos = mapped_ahead(_look_up, filter(is_remote, names), threads=CONNECTIONS, depth=10 * CONNECTIONS)
    for name in names:
        yield name, next(infos) if is_remote(name) else None


def _look_up(url: str) -> pafs.FileInfo:
    system, path = filesystem(url)
    try:
        return system.get_file_info(path)
    except OSError as error:
        raise InputError(f"{url} cannot be listed: {error}") from error


def _list(name: str, info: pafs.FileInfo | None, ignored: Counter[str]) -> Iterator[Shard]:
    if info:
        yield from _list_remote(name, info, ignored)
        return
    path = Path(name).expanduser().absolute()
    if not os.path.lexists(path) and glob.has_magic(name):
        yield from _list_glob(path, ignored)
        return
    if not os.path.lexists(path):
        raise InputError(f"there is no {printable(name)}")
    if path.is_dir():
        relatives = ((file, os.path.relpath(file, path)) for file in _walk(str(path), set()))
        yield from _tables_if_alone(
            (_local(file, relative) for file, relative in relatives if _is_input(relative, ignored)), ignored
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
        _refuse_compressed(file)
        relative = os.path.relpath(file, fixed)
        if _is_input(relative, ignored):
            yield _local(file, relative)


def _tables_if_alone(shards: Iterable[Shard], ignored: Counter[str]) -> Iterator[Shard]:
    """The shards of a folder. Parquet files beside images or tars tell of them, say, and are ignored."""
    tables, others = [], False
    for shard in shards:
        if shard.form == Form.PARQUET:
            tables.append(shard)
        else:
            others = True
            yield shard
    if not others:
        yield from tables
    elif tables:
        ignored[".parquet"] += len(tables)


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


def _is_input(name: str, ignored: Counter[str]) -> bool:
    base = name.rpartition("/")[2].lower()
    extension = base.rpartition(".")[2] if "." in base else ""
    if base.startswith("."):
        ignored["hidden"] += 1
        return False
    if extension in EXTENSIONS or extension in (Form.TAR, Form.PARQUET):
        return True
    ignored[printable(f".{extension}" if extension else "no extension")] += 1
    return False


def _local(path: str, image_id: str) -> Shard:
    _refuse_compressed(path)
    try:
        status = os.stat(path)  # noqa: PTH116 - Path would be made for each of millions
        size = status.st_size if stat.S_ISREG(status.st_mode) else -1
        return Shard(path, _image_id(image_id), size, status.st_mtime_ns)
    except OSError:
        return Shard(path, _image_id(image_id), -1, 0)  # a broken link, say: the reader says what is wrong


def _image_id(name: str) -> str:
    return "" if name.lower().endswith((".tar", ".parquet")) else printable(name)


def _refuse_compressed(path: str) -> None:
    if path.lower().endswith(_COMPRESSED):
        raise InputError(f"{printable(path)} is compressed, so it cannot be read from the middle; unpack it first")


def _list_remote(url: str, info: pafs.FileInfo, ignored: Counter[str]) -> Iterator[Shard]:
    system, path = filesystem(url)
    root = url.removesuffix(path)
    if info.type == pafs.FileType.File:
        shards = _remote_shards([info], root, path.rpartition("/")[0], ignored)
        yield from _tables_if_alone(shards, ignored)
        return
    is_glob = info.type == pafs.FileType.NotFound and glob.has_magic(path)
    base = _before_wildcards(path) if is_glob else path
    try:
        if info.type == pafs.FileType.NotFound and not is_glob:
            raise InputError(f"there is no {url}")
        found = system.get_file_info(pafs.FileSelector(base, recursive=True, allow_not_found=is_glob))
    except OSError as error:
        raise InputError(f"{url} cannot be listed: {error}") from error
    if is_glob:
        patterns = path.split("/")
        found = [one for one in found if one.type == pafs.FileType.File and _matches(one.path.split("/"), patterns)]
        if not found:
            raise InputError(f"nothing matches {url}")
        yield from _remote_shards(found, root, base, ignored)
        return
    yield from _tables_if_alone(_remote_shards(found, root, base, ignored), ignored)


def _before_wildcards(path: str) -> str:
    parts = path.split("/")
    return "/".join(parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))])


def _matches(parts: list[str], patterns: list[str]) -> bool:
    """As a shell does: `*` stays within a name, `**` stands for any number of folders."""
    if not patterns or not parts:
        return not parts and all(pattern == "**" for pattern in patterns)
    if patterns[0] == "**":
        return _matches(parts, patterns[1:]) or _matches(parts[1:], patterns)
    return fnmatch.fnmatchcase(parts[0], patterns[0]) and _matches(parts[1:], patterns[1:])


def _remote_shards(found: list[pafs.FileInfo], root: str, base: str, ignored: Counter[str]) -> Iterator[Shard]:
    for file in sorted(found, key=lambda file: str(file.path)):
        relative = file.path[len(base) :].lstrip("/")
        if file.type == pafs.FileType.File and (len(found) == 1 or _is_input(relative, ignored)):
            _refuse_compressed(file.path)
            yield Shard(root + file.path, _image_id(relative), file.size, file.mtime_ns or 0)
