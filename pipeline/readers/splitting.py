"""Cuts spans of large shards into pieces, so that one large shard keeps many readers busy.

A row's number is its identity, so where a piece begins is known only once all samples before it were counted: the
headers of a tar are read once, from many places at a time; a Parquet file says it in its footer.
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
from pipeline.tar.samples import IdAssigner
from pipeline.tar.walk import walk

PIECE_BYTES = 256 << 20
"""Some thousand photos: little enough that at the end of a job none waits long for the last."""
PIECE_IMAGES = 1_000
"""Of a list."""
SEGMENT_BYTES = 64 << 20
"""Of a tar whose headers are read one after the other."""
SEARCH_BYTES = 16 << 20
"""Within which a segment's first header should be: few members are larger."""


def split_spans(
    spans: Iterable[Span], *, min_pieces: int, piece_bytes: int, options: ReadOptions = DEFAULTS
) -> list[Span]:
    """The spans; where fewer than `min_pieces` of them are of tars and Parquet files, those of large ones in pieces.

    What cannot be read lies in the last piece, whose reader will say so in a row.
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
    """The spans of one tar, in order, in pieces that know what their ids need to know of the rows before."""
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
        piece = piece and replace(piece, tar_context=None)  # its reader finds out
    yield from filter(None, [piece])
    yield from waiting[::-1]


def _elements(shard: Shard) -> Iterator[Element]:
    """The elements of a tar, by its headers alone. Raises OSError.

    Its segments are walked at the same time, each from what looks like a header. What a walk found counts only if the
    walk before it ended where it began; else the segment is walked again from there.
    """
    starts = range(0, shard.size, SEGMENT_BYTES)
    walks = prefetch_map(partial(_walk_segment, shard), starts, threads=CONNECTIONS, depth=2 * CONNECTIONS)
    reached, last = 0, None
    for start, found in zip(starts, walks, strict=True):
        stop = start + SEGMENT_BYTES
        if reached >= min(stop, shard.size):
            continue  # inside of a large member
        known = [element for element in found if element.start >= reached]
        if not known or known[0].start != reached:
            known = list(_walk(shard, reached, stop))
        yield from known
        last = known[-1]
        reached = last.stop
    if last is None or isinstance(last, Member):
        yield from _walk(shard, reached, None)  # which ends without padding


def _walk_segment(shard: Shard, start: int) -> list[Element]:
    """The elements that begin in a segment, as far as they can be found without knowing where it begins."""
    found: list[Element] = []
    try:
        with open_shard(shard, skim=True) as file:
            offset = find_header(file, start=start, stop=min(start + SEARCH_BYTES, shard.size)) if start else 0
        if offset is not None:
            for element in _walk(shard, offset, start + SEGMENT_BYTES):
                found.append(element)  # one by one: those before a failure are kept
    except OSError:
        pass  # whoever walks there for certain meets it again
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
        pass  # its reader will say so
    yield piece
