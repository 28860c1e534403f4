"""Yields the rows of a tar, by headers alone or with their images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import takewhile
from typing import BinaryIO

from pipeline.errors import DataError
from pipeline.filenames import printable
from pipeline.read_options import LARGE_SIBLINGS, MAX_SIBLING_BYTES, ReadOptions, check_size
from pipeline.schema import EncodedRow, ErrorCode
from pipeline.shards import Shard, Span
from pipeline.storage.shard_file import open_shard
from pipeline.tar.elements import Element, Gap, Member, read_member
from pipeline.tar.links import LinkResolver
from pipeline.tar.sample_rows import IdAssigner, IdSource, RecordedIds, Row, image_matcher, sample_rows
from pipeline.tar.samples import Sample, group_samples
from pipeline.tar.walk import walk

MAX_BUFFERED_BYTES = 64 << 20
"""Maximum size of the buffered members of a sample; further ones are read after the end of the sample is found."""


def tar_rows(
    shard: Shard, options: ReadOptions, elements: Iterable[Element] | None = None, ids: IdSource | None = None
) -> Iterator[Row]:
    """Yields all rows of a tar from its headers. Raises OSError.

    Args:
        options: the options by which the tar is read.
        elements: the elements of the tar; None walks it.
        ids: assigns the image_ids; None uses a new `IdAssigner`.
    """
    if elements is None:
        with open_shard(shard, skim=True) as file:
            yield from tar_rows(shard, options, walk(file, size=shard.size), ids)
    else:
        yield from _named(shard, options, group_samples(elements), ids or IdAssigner())


def read_tar(span: Span, options: ReadOptions) -> Iterator[EncodedRow]:
    """Yields the rows of a span of a tar in order. Raises OSError if it becomes unreadable."""
    shard = span.shard
    ids, first = _context_of(span, options)
    ignored, row = Counter[str](), None
    with open_shard(shard, span.offset) as file, closing(LinkResolver(shard)) as links:
        reader = _Reader(file, links, options, skipped=span.start - first)
        found = group_samples(walk(file, size=shard.size, offset=span.offset), reader.read_ahead)
        for row in _named(shard, options, found, ids, index=first, ignored=ignored):
            if row.index >= span.start:
                yield reader.read_row(row)
    if row is None and not first:
        nothing = DataError(ErrorCode.EMPTY_SHARD, "the tar holds no images")
        yield EncodedRow(file_name(shard), shard.size, nothing, ignored=ignored)


def read_image(shard: Shard, row: Row, options: ReadOptions) -> bytes:
    """Reads the image of one row. Raises DataError or OSError."""
    with closing(LinkResolver(shard)) as links:
        image = _Reader(links.file, links, options).read_row(row).image
    if isinstance(image, DataError):
        raise image
    return image


def file_name(shard: Shard) -> str:
    """Returns the file name of a tar, without its folder."""
    return printable(shard.path).rpartition("/")[2]


def _named(
    shard: Shard,
    options: ReadOptions,
    found: Iterable[Sample | Gap | Member],
    ids: IdSource,
    *,
    index: int = 0,
    ignored: Counter[str] | None = None,
) -> Iterator[Row]:
    is_image = image_matcher(options.image_members)
    return sample_rows(found, is_image=is_image, name=file_name(shard), ids=ids, index=index, ignored=ignored)


def _context_of(span: Span, options: ReadOptions) -> tuple[IdSource, int]:
    """Returns the id source for the rows of a span, and the index of the first row that begins at its offset.

    Without a `TarContext`, the headers before the span are walked, as an id depends on those before it.
    """
    if span.tar_context:
        return RecordedIds(span.tar_context.renamed), span.tar_context.first
    ids, first = IdAssigner(), 0
    if span.offset:
        with open_shard(span.shard, skim=True) as file:
            before = takewhile(lambda element: element.start < span.offset, walk(file, size=span.shard.size))
            for row in tar_rows(span.shard, options, before, ids):
                first = row.index + 1
    return ids, first


class _Reader:
    """Reads the images and siblings of rows, most of them while the walk passes, so that the file is read sequentially.

    Args:
        file: the tar, on which the walk runs.
        links: the link resolver of the tar.
        options: the options by which the tar is read.
        skipped: number of images to skip before the first one to be read.
    """

    def __init__(self, file: BinaryIO, links: LinkResolver, options: ReadOptions, *, skipped: int = 0) -> None:
        self._file, self._links, self._options, self._skipped = file, links, options, skipped
        self._is_image = image_matcher(options.image_members)
        self._endings = tuple(f".{name.lower()}" for name in options.siblings)

    def read_ahead(self, member: Member, buffered_bytes: int) -> bytes | None:
        """Reads a member that a row needs; returns None if no row needs it or it is better read later."""
        if self._is_image(member.name):
            if self._skipped:
                self._skipped -= 1
                return None
        elif not member.name.lower().endswith(self._endings) or member.unpacked_bytes > MAX_SIBLING_BYTES:
            return None
        if member.kind != "file" or member.unpacked_bytes > self._options.max_image_bytes:
            return None
        if buffered_bytes and buffered_bytes + member.unpacked_bytes > MAX_BUFFERED_BYTES:
            return None
        try:
            return read_member(self._file, member)
        except DataError:  # `read_row` raises it again for the row
            return None

    def read_row(self, row: Row) -> EncodedRow:
        """Returns a row with its image and siblings, or its error."""
        if row.sample is None:
            gap = row.gap or Gap(row.start, row.next_offset, ErrorCode.CORRUPT_SHARD, "damage")
            damage, lost_bytes = DataError(gap.code, gap.message), gap.stop - gap.start
            return EncodedRow(row.image_id, row.next_offset, damage, ignored=row.ignored, lost_bytes=lost_bytes)
        ignored, sample, image_of = Counter(row.ignored), row.sample, row.extension
        beside = {name: self._sibling(sample, image_of, name.lower(), ignored) for name in self._options.siblings}
        found = {name: data for name, data in beside.items() if data is not None}
        try:
            image: bytes | DataError = self._bytes(row.sample, row.extension, self._options.max_image_bytes)
        except DataError as error:
            image = error
        return EncodedRow(row.image_id, row.next_offset, image, found, ignored)

    def _sibling(self, sample: Sample, image: str, extension: str, ignored: Counter[str]) -> bytes | None:
        """Reads a sibling: for image "left.jpg" "left.txt", or else "txt". Counts one that is too large."""
        prefix = image.rpartition(".")[0]
        for name in (f"{prefix}.{extension}", extension):
            if name in sample.members:
                try:
                    return self._bytes(sample, name, MAX_SIBLING_BYTES)
                except DataError as error:
                    ignored.update([LARGE_SIBLINGS] if error.code == ErrorCode.TOO_LARGE else [])
        return None

    def _bytes(self, sample: Sample, extension: str, max_bytes: int) -> bytes:
        data = sample.files[extension]
        if data is not None:
            return data
        member, file = sample.members[extension], self._file
        if not member.is_file:
            member, file = self._links.resolve(member), self._links.file
        check_size(member.unpacked_bytes, max_bytes)
        return read_member(file, member)
