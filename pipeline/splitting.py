"""Cuts spans of large shards into pieces, so that one large shard keeps many readers busy.

A tar is walked once, from header to header, to find where its samples begin; a Parquet file says it in its footer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from pipeline.errors import DataError
from pipeline.inputs import Form
from pipeline.ledger import Span
from pipeline.parquet import Table
from pipeline.source import keys_before, open_shard
from pipeline.tar import samples

PIECE_BYTES = 256 << 20
"""Some thousand photos: little enough that at the end of a job none waits long for the last."""
THREADS = 8


def split(spans: Iterable[Span], *, wanted: int, piece_bytes: int) -> list[Span]:
    """The spans; those of large shards in pieces where there are fewer than `wanted` spans.

    Damage ends the walk: it lies in the last piece, whose reader will say so in a row.
    """
    whole = list(spans)
    if len(whole) >= wanted:
        return whole
    with ThreadPoolExecutor(THREADS) as threads:
        cut = threads.map(lambda span: list(_pieces(span, piece_bytes)), whole)
        return [piece for pieces in cut for piece in pieces]


def _pieces(span: Span, piece_bytes: int) -> Iterator[Span]:
    is_large = span.stop is None and span.shard.size - span.offset >= 2 * piece_bytes
    if is_large and span.shard.form == Form.TAR:
        yield from _pieces_of_tar(span, piece_bytes)
    elif is_large and span.shard.form == Form.PARQUET:
        yield from _pieces_of_parquet(span, piece_bytes)
    else:
        yield span


def _pieces_of_tar(span: Span, piece_bytes: int) -> Iterator[Span]:
    piece, doubled, index = span, set[int](), span.start
    try:
        seen = keys_before(span) if span.offset else set()
        with open_shard(span.shard, span.offset) as file:
            walk = samples(file, size=span.shard.size, offset=span.offset, wanted=lambda _: False)
            for index, sample in enumerate(walk, span.start):
                if sample.start - piece.offset >= piece_bytes:
                    yield replace(piece, stop=index, doubled=frozenset(doubled))
                    piece, doubled = replace(span, start=index, offset=sample.start), set()
                if sample.key in seen:
                    doubled.add(index)
                seen.add(sample.key)
    except (DataError, OSError):
        pass
    yield replace(piece, doubled=frozenset(doubled))


def _pieces_of_parquet(span: Span, piece_bytes: int) -> Iterator[Span]:
    piece = span
    try:
        with open_shard(span.shard) as file:
            groups = Table(file, span.shard.size).groups
    except (DataError, OSError):
        groups = []
    for row, offset in groups:
        if row > piece.start and offset - piece.offset >= piece_bytes:
            yield replace(piece, stop=row)
            piece = replace(span, start=row, offset=offset)
    yield piece
