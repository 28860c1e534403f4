"""Lists the files of a store as shards."""

from __future__ import annotations

import fnmatch
import glob
from collections import Counter
from collections.abc import Iterator
from functools import partial

import pyarrow.fs as pafs

from pipeline.errors import InputError
from pipeline.file_types import check_readable, image_id_of, is_input, matches_extension
from pipeline.inputs.tables_in_folders import without_metadata_tables
from pipeline.read_options import ReadOptions
from pipeline.shards import LISTS, Shard
from pipeline.storage.filesystems import filesystem
from pipeline.storage.other_stores import with_timeout


def look_up(url: str) -> pafs.FileInfo:
    """Returns the store's file information of a URL. Raises InputError."""
    system, path = filesystem(url)
    try:
        return (
            system.get_file_info(path)
            if url.startswith("s3://")
            else with_timeout(partial(system.get_file_info, path), url)
        )
    except OSError as error:
        raise InputError(f"{url} cannot be listed: {error}") from error


def list_remote(url: str, info: pafs.FileInfo, ignored: Counter[str], options: ReadOptions) -> Iterator[Shard]:
    """Yields the shards of a file, folder or glob pattern of a store. Raises InputError."""
    system, path = filesystem(url)
    root = (url if url.endswith(path) else f"{url}/").removesuffix(path)  # "s3://bucket" for a whole bucket
    if info.type == pafs.FileType.File:
        check_readable(path)
        yield _shard(info, root, path.rpartition("/")[2])
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
    shards = _shards(found, root, base, ignored, all_of_them=is_glob and matches_extension(path, LISTS))
    yield from (
        shards
        if is_glob and matches_extension(path, ["parquet"])
        else without_metadata_tables(shards, ignored, options)
    )


def _before_wildcards(path: str) -> str:
    parts = path.split("/")
    return "/".join(parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))])


def _matches(parts: list[str], patterns: list[str]) -> bool:
    """Matches as a shell does: `*` stays within a name, `**` stands for any number of folders."""
    if not patterns or not parts:
        return not parts and all(pattern == "**" for pattern in patterns)
    if patterns[0] == "**":
        return _matches(parts, patterns[1:]) or _matches(parts[1:], patterns)
    return fnmatch.fnmatchcase(parts[0], patterns[0]) and _matches(parts[1:], patterns[1:])


def _shards(
    found: list[pafs.FileInfo], root: str, base: str, ignored: Counter[str], *, all_of_them: bool
) -> Iterator[Shard]:
    for file in sorted(found, key=lambda file: str(file.path)):
        relative = file.path[len(base) :].lstrip("/")
        if file.type == pafs.FileType.File and (all_of_them or is_input(relative, ignored)):
            yield _shard(file, root, relative)


def _shard(file: pafs.FileInfo, root: str, relative: str) -> Shard:
    return Shard(root + file.path, image_id_of(relative), file.size, file.mtime_ns or 0)
