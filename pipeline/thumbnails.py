r"""Small pictures of rows: where the image of each lies, and a JPEG of it.

A source that is gone, has changed or cannot be decoded gives no picture, never an error.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from PIL import Image, ImageOps

from model.preprocessing import to_rgb
from pipeline.errors import DataError, InputError
from pipeline.images import load
from pipeline.inputs import Shard
from pipeline.outcome import DEFAULTS, ReadOptions
from pipeline.parquet import Table
from pipeline.storage import is_remote, open_at
from pipeline.tar_rows import read_image, tar_rows
from pipeline.tar_samples import Row

QUALITY = 80
_ORIENTATION = 0x0112  # EXIF


@dataclass(frozen=True, slots=True)
class Source:
    """Where the bytes of one image are."""

    path: str
    in_tar: Row | None = None
    row: int = -1
    """Of a Parquet file."""


def sources(rows: Iterable[tuple[str, int]], options: ReadOptions = DEFAULTS) -> Iterator[Source | None]:
    """Where the image of each row is; None where it cannot be found. Reads headers only, each tar once.

    Args:
        rows: `shard` and `index`, in this order.
        options: how the shards were read.
    """
    for shard, group in groupby(rows, key=itemgetter(0)):
        indices = [index for _, index in group]
        path = _existing(shard)
        if path.lower().endswith(".parquet"):
            yield from (Source(path, row=index) for index in indices)
            continue
        if not path.lower().endswith(".tar"):
            yield from (Source(path) for _ in indices)
            continue
        walk, found = _walk(path, options), None
        for index in indices:
            while (found is None or found.index < index) and (following := next(walk, None)):
                found = following
            yield Source(path, found) if found and found.index == index else None


def thumbnail(source: Source | None, *, size: int) -> bytes | None:
    """A JPEG whose longest side is at most `size` pixels, upright, over white; None if there is no such image."""
    if source is None:
        return None
    try:
        image, _ = load(_read(source), draft=lambda image: image.draft(None, (size, size)))
        orientation = image.getexif().get(_ORIENTATION, 1)
    except (OSError, DataError, InputError):
        return None
    small = to_rgb(image)
    small.thumbnail((size, size), Image.Resampling.LANCZOS)
    small.info = {}  # comments and damaged EXIF stay behind
    small.getexif()[_ORIENTATION] = orientation
    buffer = io.BytesIO()
    ImageOps.exif_transpose(small).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _walk(path: str, options: ReadOptions) -> Iterator[Row]:
    """The rows of a tar, up to the place where it cannot be read on."""
    try:
        yield from tar_rows(_shard(path), options)
    except (OSError, InputError):
        return


def _shard(path: str) -> Shard:
    with open_at(path, skim=True) as file:
        return Shard(path, "", file.seek(0, os.SEEK_END), 0)


def _read(source: Source) -> bytes:
    """The encoded image. Raises OSError, DataError or InputError."""
    if source.in_tar:
        return read_image(_shard(source.path), source.in_tar, DEFAULTS)
    with open_at(source.path, skim=True) as file:
        if source.row >= 0:
            size = file.seek(0, os.SEEK_END)
            return next(row.image or b"" for row in Table(file, size).rows(source.row))
        return file.read()


def _existing(shard: str) -> str:
    r"""The path of a shard, whose bytes that are not UTF-8 were written as `\xNN`."""
    if is_remote(shard) or "\\x" not in shard or os.path.lexists(shard):
        return shard
    return os.fsdecode(re.sub(rb"\\x([89a-f][0-9a-f])", lambda match: bytes.fromhex(match[1].decode()), shard.encode()))
