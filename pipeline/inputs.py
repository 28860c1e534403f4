"""What the user names → shards: every file that holds images, with what identifies it.

A shard is a tar, a Parquet file, or an image file, which is a shard with one image. Only names, sizes and times are
read here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pyarrow.fs as pafs

from pipeline.ahead import mapped_ahead
from pipeline.braces import expand_braces
from pipeline.errors import InputError
from pipeline.local_listing import list_local
from pipeline.names import printable
from pipeline.remote_listing import list_remote, look_up
from pipeline.shards import Form, Shard
from pipeline.storage import CONNECTIONS, is_remote

__all__ = ["Form", "Listing", "Shard", "expand_braces", "list_inputs"]


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


def _looked_up(names: list[str]) -> Iterator[tuple[str, pafs.FileInfo | None]]:
    """Names with what a store says of them; it is asked for many at a time. Raises InputError."""
    infos = mapped_ahead(look_up, filter(is_remote, names), threads=CONNECTIONS, depth=10 * CONNECTIONS)
    for name in names:
        yield name, next(infos) if is_remote(name) else None


def _list(name: str, info: pafs.FileInfo | None, ignored: Counter[str]) -> Iterator[Shard]:
    return list_remote(name, info, ignored) if info else list_local(name, ignored)
