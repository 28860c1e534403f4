"""Cuts spans of large shards into pieces, so that one large shard keeps many readers busy.

A row's number is its identity, so where a piece begins is known only once all samples before it were counted: the
headers of a tar are read once, from many places at a time; a Parquet file says it in its footer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

from pipeline.ahead import mapped_ahead
from pipeline.errors import DataError
from pipeline.inputs import Form, Shard
from pipeline.ledger import Span
from pipeline.parquet import Table
from pipeline.shard_file import open_shard
from pipeline.storage import CONNECTIONS
from pipeline.tar import Member, find_header, grouped, members

PIECE_BYTES = 256 << 20
"""Some thousand photos: little enough that at the end of a job none waits long for the last."""
SEGMENT_BYTES = 64 << 20
"""Of a tar whose headers are read one after the other."""
SEARCHED_BYTES = 16 << 20
"""Within which a segment's first header should be: few members are larger."""


def split(spans: Iterable[Span], *, wanted: int, piece_bytes: int) -> list[Span]:
    """The spans; where fewer than `wanted` of them are of tars and Parquet files, those of large ones in pieces.

    Damage ends the walk: it lies in the last piece, whose reader will say so in a row.
    """
    of_shard: dict[Shard, list[Span]] = {}
    for span in spans:
        of_shard.setdefault(span.shard, []).append(span)
    is_enough = sum(len(them) for shard, them in of_shard.items() if shard.form != Form.IMAGE) >= wanted
    pieces: list[Span] = []
    for shard, them in of_shard.items():
        if is_enough or shard.form == Form.IMAGE or shard.size < 2 * piece_bytes:
            pieces += them
        elif shard.form == Form.TAR:
            pieces += _pieces_of_tar(shard, them, piece_bytes)
        else:
            pieces += [piece for span in them for piece in _pieces_of_parquet(span, piece_bytes)]
    return pieces


def _pieces_of_tar(shard: Shard, spans: list[Span], piece_bytes: int) -> Iterator[Span]:
    """The spans of one tar, in order, in pieces that know which of their keys came before."""
    seen, doubled = set[str](), set[int]()
    waiting, piece = spans[::-1], None
    try:
        for index, sample in enumerate(grouped(_members(shard))):
            if piece and index == piece.stop:
                yield replace(piece, doubled=frozenset(doubled))
                piece = None
            if waiting and index == waiting[-1].start:
                piece, doubled = waiting.pop(), set()
            elif piece and sample.start - piece.offset >= piece_bytes:
                yield replace(piece, stop=index, doubled=frozenset(doubled))
                piece, doubled = replace(piece, start=index, offset=sample.start), set()
            if sample.key in seen:
                doubled.add(index)
            seen.add(sample.key)
    except (DataError, OSError):
        yield from filter(None, [piece])  # which keys came before, its reader finds out
    else:
        yield from (replace(last, doubled=frozenset(doubled)) for last in [piece] if last)
    yield from waiting[::-1]


def _members(shard: Shard) -> Iterator[Member]:
    """The members of a tar, by their headers alone. Raises DataError or OSError.

    Its segments are walked at the same time, each from what looks like a header. What a walk found counts only if the
    walk before it ended where it began; else the segment is walked again from there.
    """
    starts = range(0, shard.size, SEGMENT_BYTES)
    walks = mapped_ahead(partial(_walk_segment, shard), starts, threads=CONNECTIONS, depth=2 * CONNECTIONS)
    reached = 0
    for start, found in zip(starts, walks, strict=True):
        stop = start + SEGMENT_BYTES
        if reached >= stop:
            continue  # inside of a large member
        known = [member for member in found if member.start >= reached]
        if not known or known[0].start != reached:
            known = list(_walk(shard, reached, stop))
        if not known:
            return
        yield from known
        reached = known[-1].stop
    yield from _walk(shard, reached, shard.size)  # nothing, but for damage


def _walk_segment(shard: Shard, start: int) -> list[Member]:
    """The members that begin in a segment, as far as they can be found without knowing where it begins."""
    found: list[Member] = []
    try:
        with open_shard(shard, skim=True) as file:
            offset = find_header(file, start=start, stop=min(start + SEARCHED_BYTES, shard.size)) if start else 0
        if offset is not None:
            for member in _walk(shard, offset, start + SEGMENT_BYTES):
                found.append(member)  # one by one: those before damage are kept
    except (DataError, OSError):
        pass  # whoever walks there for certain meets it again
    return found


def _walk(shard: Shard, offset: int, stop: int) -> Iterator[Member]:
    with open_shard(shard, offset, skim=True) as file:
        for member in members(file, size=shard.size, offset=offset, wanted=lambda _: False):
            if member.start >= stop:
                return
            yield member


def _pieces_of_parquet(span: Span, piece_bytes: int) -> Iterator[Span]:
    piece = span
    try:
        with open_shard(span.shard, skim=True) as file:
            groups = Table(file, span.shard.size).groups
    except (DataError, OSError):
        groups = []
    for row, offset in groups:
        is_inside = piece.start < row and (span.stop is None or row < span.stop)
        if is_inside and offset - piece.offset >= piece_bytes:
            yield replace(piece, stop=row)
            piece = replace(span, start=row, offset=offset)
    yield piece
