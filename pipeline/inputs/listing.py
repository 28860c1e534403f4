"""Lists the shards of the inputs that the user names: every file that holds images.

A shard is a tar, a Parquet file, a list of paths or URLs, or an image file, which is a shard with one image. Listing
reads only names, sizes and times, and the footers of Parquet files that lie beside images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pyarrow.fs as pafs

from pipeline.errors import InputError
from pipeline.file_types import check_readable, no_images_error
from pipeline.filenames import printable
from pipeline.inputs import standard_input
from pipeline.inputs.brace_expansion import expand_braces, expand_input
from pipeline.inputs.local_listing import list_local
from pipeline.inputs.remote_listing import list_remote, look_up
from pipeline.read_options import DEFAULTS, ReadOptions
from pipeline.shards import STANDARD_INPUT, Shard, ShardFormat, format_of
from pipeline.storage.filesystems import CONNECTIONS, is_remote
from pipeline.storage.http_images import is_web
from pipeline.storage.prefetch import prefetch_map

__all__ = ["Listing", "Shard", "ShardFormat", "expand_braces", "list_inputs"]


@dataclass
class Listing:
    """The shards of a job, each once, in the order of the inputs."""

    shards: list[Shard] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    """Number of files in input folders and globs that are not read, by kind."""


def list_inputs(inputs: Iterable[str], options: ReadOptions = DEFAULTS) -> Listing:
    """Lists folders (with all below them), images, tars, Parquet files, lists, globs and braces (`{0000..0099}.tar`).

    Raises InputError for an input that does not exist or holds no image, and for two images with the same image_id.
    """
    listing = Listing()
    paths: set[str] = set()
    ids: dict[str, str] = {}
    for given in inputs:
        found, ignored = False, Counter[str]()
        for shard in (shard for name in _looked_up(expand_input(given)) for shard in _list(*name, ignored, options)):
            found = True
            if shard.path in paths:
                continue
            paths.add(shard.path)
            if shard.image_id and ids.setdefault(shard.image_id, shard.path) != shard.path:
                raise InputError(
                    f"{printable(ids[shard.image_id])} and {printable(shard.path)} would both get image_id"
                    f" {shard.image_id!r}; caption their parent folder, or each of them into its own output"
                )
            listing.shards.append(shard)
        if not found:
            raise no_images_error(given, ignored)
        listing.ignored += ignored
    return listing


def _looked_up(names: list[str]) -> Iterator[tuple[str, pafs.FileInfo | None]]:
    """Yields names with their file information from the store, requested concurrently. Raises InputError."""
    infos = prefetch_map(look_up, filter(_is_in_store, names), threads=CONNECTIONS, depth=10 * CONNECTIONS)
    for name in names:
        yield name, next(infos) if _is_in_store(name) else None


def _is_in_store(name: str) -> bool:
    return is_remote(name) and not _is_on_web(name)


def _is_on_web(name: str) -> bool:
    """Returns whether a name is the web URL of an image; other shards on the web are read as from a store."""
    return is_web(name) and format_of(name.partition("?")[0]) == ShardFormat.IMAGE


def _list(name: str, info: pafs.FileInfo | None, ignored: Counter[str], options: ReadOptions) -> Iterator[Shard]:
    if info:
        return list_remote(name, info, ignored, options)
    if name == STANDARD_INPUT:
        return iter([standard_input.shard()])
    if _is_on_web(name):
        check_readable(name.partition("?")[0])
        return iter([Shard(name, printable(name), 0, 0)])
    return list_local(name, ignored, options)
