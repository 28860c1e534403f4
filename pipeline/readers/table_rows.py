"""Reads the rows of Parquet files and lists; images at other locations are read concurrently."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

from pipeline.errors import DataError
from pipeline.filenames import printable
from pipeline.parquet.reader import ParquetShard
from pipeline.parquet.reader import Row as ParquetRow
from pipeline.read_options import LARGE_SIBLINGS, MAX_SIBLING_BYTES, ReadOptions, check_size
from pipeline.readers.image_locations import read_image_at
from pipeline.readers.lists import read_entries
from pipeline.schema import EncodedRow, ErrorCode
from pipeline.shards import Shard, ShardFormat, Span, extension_of
from pipeline.storage.filesystems import open_at
from pipeline.storage.shard_file import open_shard

THREADS, DEPTH = 32, 64
"""Number of images at other locations that are read concurrently, and that may wait for their turn."""
PREFETCH_BYTES = 16 << 20
"""Maximum size of a prefetched image, which bounds waiting ones to 1 GiB. A larger image is read in its turn."""

MAX_BUFFERED_BYTES = 64 << 20
"""Maximum total size of images from the table itself that wait for an image at another location."""


@dataclass(frozen=True, slots=True)
class _Row:
    image_id: str
    next_offset: int
    image: bytes | str | DataError
    siblings: Mapping[str, bytes]
    ignored: Mapping[str, int] = field(default_factory=dict)


def read_parquet(span: Span, options: ReadOptions) -> Generator[EncodedRow]:
    """Yields the rows of a span of a Parquet file in order. Raises DataError or OSError if it becomes unreadable."""
    with open_shard(span.shard) as file:
        found = ParquetShard(file, span.shard.size, options).rows(span.start, options.siblings)
        yield from _read_images(map(_row, found), span.shard, options, confined=True)


def _row(row: ParquetRow) -> _Row:
    """Gives a row without an image its error, and counts siblings that are too large instead of keeping them."""
    image = DataError(ErrorCode.NO_IMAGE, "the row's image is null") if row.image is None else row.image
    siblings = {name: text for name, text in row.siblings.items() if len(text) <= MAX_SIBLING_BYTES}
    too_large = len(row.siblings) - len(siblings)
    return _Row(row.name, row.next_offset, image, siblings, {LARGE_SIBLINGS: too_large} if too_large else {})


def read_list(span: Span, options: ReadOptions) -> Generator[EncodedRow]:
    """Yields the rows of a span of a list in order. Raises DataError or OSError if it becomes unreadable."""
    with open_shard(span.shard) as file:
        found = read_entries(
            file,
            extension_of(span.shard.data or span.shard.path),
            options,
            start=span.start,
            offset=span.offset,
            siblings=options.siblings,
        )
        rows = (_Row(printable(row.name), row.next_offset, row.location, row.siblings) for row in found)
        yield from _read_images(rows, span.shard, options, confined=False)


def read_row_image(path: str, row: int, options: ReadOptions) -> bytes:
    """Reads the image of one row of a Parquet file or list. Raises DataError, OSError or InputError."""
    with open_at(path, skim=True) as file:
        size = file.seek(0, os.SEEK_END)
    span = Span(Shard(path, "", size, 0), start=row)
    encoded_rows = read_list(span, options) if span.shard.format == ShardFormat.LIST else read_parquet(span, options)
    with closing(encoded_rows) as rows:
        image = next(rows).image
    if isinstance(image, DataError):
        raise image
    return image


def _read_images(rows: Iterable[_Row], shard: Shard, options: ReadOptions, *, confined: bool) -> Generator[EncodedRow]:
    """Yields the rows in order, with images at other locations read; rows that hold their image do not wait."""
    read = partial(read_image_at, folder=_folder(shard, options), confined=confined)
    waiting: deque[tuple[_Row, Future[bytes] | None]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for row in rows:
                ahead = min(PREFETCH_BYTES, options.max_image_bytes)
                future = pool.submit(read, row.image, max_bytes=ahead) if isinstance(row.image, str) else None
                waiting.append((row, future))
                while waiting and (
                    not waiting[0][1] or len(waiting) > DEPTH or _buffered_bytes(waiting) > MAX_BUFFERED_BYTES
                ):
                    yield _finish_row(*waiting.popleft(), read, options.max_image_bytes)
        except (DataError, OSError):
            yield from (_finish_row(*one, read, options.max_image_bytes) for one in waiting)
            raise
        else:
            yield from (_finish_row(*one, read, options.max_image_bytes) for one in waiting)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _buffered_bytes(waiting: Iterable[tuple[_Row, object]]) -> int:
    """Returns the total size of images from the table itself that wait for earlier rows."""
    return sum(len(row.image) for row, _ in waiting if isinstance(row.image, bytes))


def _finish_row(row: _Row, future: Future[bytes] | None, read: Callable[..., bytes], max_bytes: int) -> EncodedRow:
    image = row.image
    try:
        if future:
            image = future.result()
        elif isinstance(image, bytes):
            check_size(len(image), max_bytes)
    except DataError as error:
        image = error
        if future and error.code == ErrorCode.TOO_LARGE and max_bytes > PREFETCH_BYTES:
            image = _read_now(row.image, read, max_bytes)
    assert not isinstance(image, str)
    return EncodedRow(row.image_id, row.next_offset, image, row.siblings, row.ignored)


def _read_now(location: bytes | str | DataError, read: Callable[..., bytes], max_bytes: int) -> bytes | DataError:
    try:
        return read(location, max_bytes=max_bytes)
    except DataError as error:
        return error


def _folder(shard: Shard, options: ReadOptions) -> str:
    """Returns the folder to which paths in the shard are relative."""
    return options.images_root or shard.path.rpartition("/")[0] or "/"
