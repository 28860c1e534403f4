"""Separates Parquet files with images from metadata tables that lie beside images or tars."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial

from pipeline.parquet.reader import has_images
from pipeline.read_options import ReadOptions
from pipeline.shards import Shard, ShardFormat
from pipeline.storage.filesystems import CONNECTIONS
from pipeline.storage.prefetch import prefetch_map
from pipeline.storage.shard_file import open_shard

METADATA = "metadata.parquet"
"""Name of the metadata table in Hugging Face image folders."""
METADATA_TABLE = "metadata.parquet beside images (name it to have it read)"
NO_IMAGE_COLUMN = "Parquet without a column of images, beside images"


def without_metadata_tables(shards: Iterable[Shard], ignored: Counter[str], options: ReadOptions) -> Iterator[Shard]:
    """Yields the shards of a folder without metadata tables: images and tars in order, then Parquet files with images.

    Parquet files are opened only if there are also images or tars, and only for their footers. A damaged one is kept:
    its row reports the damage.
    """
    tables, others = [], False
    for shard in shards:
        if shard.format == ShardFormat.PARQUET:
            tables.append(shard)
        else:
            others = True
            yield shard
    if not others:
        yield from tables
        return
    looked_into = prefetch_map(
        partial(_ignored_reason, options=options), tables, threads=CONNECTIONS, depth=2 * CONNECTIONS
    )
    for table, reason in zip(tables, looked_into, strict=True):
        if reason:
            ignored[reason] += 1
        else:
            yield table


def _ignored_reason(table: Shard, options: ReadOptions) -> str:
    """Returns why a Parquet file beside images is ignored; empty if it is an input."""
    if table.path.rpartition("/")[2].lower() == METADATA:
        return METADATA_TABLE
    try:
        with open_shard(table, skim=True) as file:
            return "" if has_images(file, options) else NO_IMAGE_COLUMN
    except OSError:
        return ""
