r"""Locates the encoded image of each row in the inputs, and reads it again."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from pipeline.errors import InputError
from pipeline.filenames import from_printable
from pipeline.read_options import DEFAULTS, ReadOptions, check_size
from pipeline.readers.table_rows import read_row_image
from pipeline.shards import Shard, ShardFormat, format_of
from pipeline.storage import http_images
from pipeline.storage.filesystems import is_remote, open_at
from pipeline.storage.http_images import is_web
from pipeline.storage.shard_file import open_regular, read_bounded
from pipeline.tar.rows import read_image, tar_rows
from pipeline.tar.sample_rows import Row


@dataclass(frozen=True, slots=True)
class ImageSource:
    """The location of one encoded image."""

    path: str
    in_tar: Row | None = None
    row: int = -1
    """Index of the row in a Parquet file or list; -1 for other formats."""


def locate_images(rows: Iterable[tuple[str, int]], options: ReadOptions = DEFAULTS) -> Iterator[ImageSource | None]:
    """Yields the location of each row's image; None if it cannot be found. Reads only headers, each tar once.

    Args:
        rows: `shard` and `index` of each row, in ascending order.
        options: the options by which the shards were read.
    """
    for shard, group in groupby(rows, key=itemgetter(0)):
        indices = [index for _, index in group]
        path = _existing(shard)
        if format_of(path) in (ShardFormat.PARQUET, ShardFormat.LIST):
            yield from (ImageSource(path, row=index) for index in indices)
            continue
        if not path.lower().endswith(".tar"):
            yield from (ImageSource(path) for _ in indices)
            continue
        walk, found = _walk(path, options), None
        for index in indices:
            while (found is None or found.index < index) and (following := next(walk, None)):
                found = following
            yield ImageSource(path, found) if found and found.index == index else None


def read_image_source(source: ImageSource, options: ReadOptions = DEFAULTS) -> bytes:
    """Reads the encoded image. Raises OSError, DataError or InputError if it is missing or has changed."""
    if source.in_tar:
        return read_image(_shard(source.path), source.in_tar, DEFAULTS)
    if source.row >= 0:
        return read_row_image(source.path, source.row, options)
    if is_web(source.path):
        return http_images.get(source.path)
    with open_regular(source.path) as file:
        image = read_bounded(file, options.max_image_bytes)
    check_size(len(image), options.max_image_bytes)
    return image


def _walk(path: str, options: ReadOptions) -> Iterator[Row]:
    """Yields the rows of a tar, up to the point where it becomes unreadable."""
    try:
        yield from tar_rows(_shard(path), options)
    except (OSError, InputError):
        return


def _shard(path: str) -> Shard:
    with open_at(path, skim=True) as file:
        return Shard(path, "", file.seek(0, os.SEEK_END), 0)


def _existing(shard: str) -> str:
    r"""Returns the path of a shard, in which bytes that are not UTF-8 were written as `\xNN`."""
    return shard if is_remote(shard) or os.path.lexists(shard) else from_printable(shard)
