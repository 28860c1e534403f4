"""Splits spans of large shards into pieces, so that one large shard keeps many readers busy.

Rows are identified by their index, so the beginning of a piece is known only after counting all samples before it:
the headers of a tar are read once, from many places at a time; a Parquet file has row counts in its footer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

from pipeline.errors import DataError
from pipeline.parquet.reader import ParquetShard
from pipeline.read_options import DEFAULTS, ReadOptions
from pipeline.readers.lists import read_entries
from pipeline.shards import Shard, ShardFormat, Span, TarContext, extension_of
from pipeline.storage.filesystems import CONNECTIONS
from pipeline.storage.prefetch import prefetch_map
from pipeline.storage.shard_file import open_shard
from pipeline.tar.damage import find_header
from pipeline.tar.elements import Element, Member
from pipeline.tar.rows import tar_rows
from pipeline.tar.sample_rows import IdAssigner
from pipeline.tar.walk import walk

PIECE_BYTES = 256 << 20
"""Target size of a piece of a tar or Parquet file, some thousand photos: small enough for an even end of a job."""
PIECE_IMAGES = 1_000
"""Number of images in a piece of a list."""
SEGMENT_BYTES = 64 << 20
"""Size of the segments of a tar whose headers are walked concurrently."""
SEARCH_BYTES = 16 << 20
"""Number of bytes at the beginning of a segment that are searched for a header: few members are larger."""


def split_spans(
    spans: Iterable[Span], *, min_pieces: int, piece_bytes: int, options: ReadOptions = DEFAULTS
) -> list[Span]:
    """Splits spans of large shards if there are fewer than `min_pieces` spans of tars, Parquet files and lists.

    An unreadable place lies in the last piece of its shard, whose reader reports it in a row.

    Args:
        piece_bytes: target size of a piece in bytes.
    """
    of_shard: dict[Shard, list[Span]] = {}
    for span in spans:
        of_shard.setdefault(span.shard, []).append(span)
    is_enough = sum(len(them) for shard, them in of_shard.items() if shard.format != ShardFormat.IMAGE) >= min_pieces
    pieces: list[Span] = []
    for shard, them in of_shard.items():
        if not is_enough and shard.format == ShardFormat.LIST:
            pieces += [piece for span in them for piece in _pieces_of_list(span, options)]
        elif is_enough or shard.format == ShardFormat.IMAGE or shard.size < 2 * piece_bytes:
            pieces += them
        elif shard.format == ShardFormat.TAR:
            pieces += _pieces_of_tar(shard, them, piece_bytes, options)
        else:
            pieces += [piece for span in them for piece in _pieces_of_parquet(span, piece_bytes, options)]
    return pieces


def _pieces_of_tar(shard: Shard, spans: list[Span], piece_bytes: int, options: ReadOptions) -> Iterator[Span]:
    """Yields the pieces of one tar's spans in order, each with the `TarContext` that its reader needs."""
    ids, waiting = IdAssigner(), spans[::-1]
    piece, began_at, renamed = None, 0, dict[int, str]()
    try:
        for row in tar_rows(shard, options, _elements(shard), ids):
            is_large = piece and row.sample and row.at - began_at >= piece_bytes
            if piece and (row.index == piece.stop or is_large):
                yield replace(piece, stop=row.index)
                piece = replace(piece, start=row.index, offset=row.start) if row.index != piece.stop else None
            if waiting and row.index == waiting[-1].start:
                piece = waiting.pop()
            if piece and row.index == piece.start:
                began_at, renamed = row.at, {}
                piece = replace(piece, tar_context=TarContext(row.first, renamed))
            if row.index in ids.renamed:
                renamed[row.index] = ids.renamed.pop(row.index)
    except OSError:
        piece = piece and replace(piece, tar_context=None)  # its reader walks the headers itself and reports the error
    yield from filter(None, [piece])
    yield from waiting[::-1]


def _elements(shard: Shard) -> Iterator[Element]:
    """Yields the elements of a tar from its headers. Raises OSError.

    Segments are walked concurrently, each from the first apparent header in it. A walk is used only if the walk before
    it ends where this one begins; otherwise the segment is walked again from there.
    """
    starts = range(0, shard.size, SEGMENT_BYTES)
    walks = prefetch_map(partial(_walk_segment, shard), starts, threads=CONNECTIONS, depth=2 * CONNECTIONS)
    reached, last = 0, None
    for start, found in zip(starts, walks, strict=True):
        stop = start + SEGMENT_BYTES
        if reached >= min(stop, shard.size):
            continue  # the segment lies inside a large member
        known = [element for element in found if element.start >= reached]
        if not known or known[0].start != reached:
            known = list(_walk(shard, reached, stop))
        yield from known
        last = known[-1]
        reached = last.stop
    if last is None or isinstance(last, Member):
        yield from _walk(shard, reached, None)  # reports the missing padding


def _walk_segment(shard: Shard, start: int) -> list[Element]:
    """Returns the elements that begin in a segment, from the first apparent header on."""
    found: list[Element] = []
    try:
        with open_shard(shard, skim=True) as file:
            offset = find_header(file, start=start, stop=min(start + SEARCH_BYTES, shard.size)) if start else 0
        if offset is not None:
            for element in _walk(shard, offset, start + SEGMENT_BYTES):
                found.append(element)  # one by one: elements before a failure are kept
    except OSError:
        pass  # the walk that continues from here raises it again
    return found


def _walk(shard: Shard, offset: int, stop: int | None) -> Iterator[Element]:
    with open_shard(shard, offset, skim=True) as file:
        for element in walk(file, size=shard.size, offset=offset):
            if stop is not None and element.start >= stop:
                return
            yield element


def _pieces_of_parquet(span: Span, piece_bytes: int, options: ReadOptions) -> Iterator[Span]:
    piece = span
    try:
        with open_shard(span.shard, skim=True) as file:
            groups = ParquetShard(file, span.shard.size, options).groups
    except (DataError, OSError):
        groups = []
    for row, offset in groups:
        is_inside = piece.start < row and (span.stop is None or row < span.stop)
        if is_inside and offset - piece.offset >= piece_bytes:
            yield replace(piece, stop=row)
            piece = replace(span, start=row, offset=offset)
    yield piece


def _pieces_of_list(span: Span, options: ReadOptions) -> Iterator[Span]:
    piece, offset = span, span.offset
    try:
        with open_shard(span.shard) as file:
            kind = extension_of(span.shard.data or span.shard.path)
            for index, entry in enumerate(
                read_entries(file, kind, options, start=span.start, offset=span.offset), span.start
            ):
                if index == span.stop:
                    break
                if index - piece.start == PIECE_IMAGES:
                    yield replace(piece, stop=index)
                    piece = replace(span, start=index, offset=offset)
                offset = entry.next_offset
    except (DataError, OSError):
        pass  # the reader of the piece reports the error
    yield piece
