"""The rows of Parquet files and of lists: encoded images, those that lie elsewhere read many at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from pipeline.errors import DataError
from pipeline.filenames import printable
from pipeline.outcome import Outcome, ReadOptions, refuse_too_large
from pipeline.parquet.reader import Table
from pipeline.readers.image_locations import fetch
from pipeline.readers.lists import entries
from pipeline.schema import ErrorCode
from pipeline.shards import Shard, ShardFormat, Span, extension_of
from pipeline.storage.filesystems import open_at
from pipeline.storage.shard_file import open_shard

THREADS, DEPTH = 32, 64
"""Images that lie elsewhere are read at a time, and wait for their turn."""
AHEAD_BYTES = 16 << 20
"""Of an image that is read ahead of its turn: those that wait stay within 1 GiB. A larger one is read in its turn."""

HELD_BYTES = 64 << 20
"""Of images in the table itself that wait for one that lies elsewhere."""


@dataclass(frozen=True, slots=True)
class _Row:
    image_id: str
    next_offset: int
    image: bytes | str | DataError
    siblings: Mapping[str, bytes]


def parquet_outcomes(span: Span, options: ReadOptions) -> Generator[Outcome]:
    """The outcomes of a span of a Parquet file, in order. Raises DataError or OSError where it cannot be read on."""
    missing = DataError(ErrorCode.NO_IMAGE, "the row's image is null")
    with open_shard(span.shard) as file:
        found = Table(file, span.shard.size, options).rows(span.start, options.siblings)
        rows = (
            _Row(row.name, row.next_offset, missing if row.image is None else row.image, row.siblings) for row in found
        )
        yield from _outcomes(rows, span.shard, options, confined=True)


def list_outcomes(span: Span, options: ReadOptions) -> Generator[Outcome]:
    """The outcomes of a span of a list, in order. Raises DataError or OSError where it cannot be read on."""
    with open_shard(span.shard) as file:
        found = entries(
            file,
            extension_of(span.shard.data or span.shard.path),
            options,
            start=span.start,
            offset=span.offset,
            siblings=options.siblings,
        )
        rows = (_Row(printable(row.name), row.next_offset, row.location, row.siblings) for row in found)
        yield from _outcomes(rows, span.shard, options, confined=False)


def image_at(path: str, row: int, options: ReadOptions) -> bytes:
    """The image of one row of a Parquet file or a list. Raises DataError, OSError or InputError."""
    with open_at(path, skim=True) as file:
        size = file.seek(0, os.SEEK_END)
    span = Span(Shard(path, "", size, 0), start=row)
    outcomes = (
        list_outcomes(span, options) if span.shard.format == ShardFormat.LIST else parquet_outcomes(span, options)
    )
    with closing(outcomes) as rows:
        image = next(rows).image
    if isinstance(image, DataError):
        raise image
    return image


def _outcomes(rows: Iterable[_Row], shard: Shard, options: ReadOptions, *, confined: bool) -> Generator[Outcome]:
    """The rows in their order, with the images of those that lie elsewhere. Rows that need none do not wait."""
    read = partial(fetch, folder=_folder(shard, options), confined=confined)
    waiting: deque[tuple[_Row, Future[bytes] | None]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            for row in rows:
                ahead = min(AHEAD_BYTES, options.max_image_bytes)
                future = pool.submit(read, row.image, max_bytes=ahead) if isinstance(row.image, str) else None
                waiting.append((row, future))
                while waiting and (not waiting[0][1] or len(waiting) > DEPTH or _held(waiting) > HELD_BYTES):
                    yield _outcome(*waiting.popleft(), read, options.max_image_bytes)
        except (DataError, OSError):
            yield from (_outcome(*one, read, options.max_image_bytes) for one in waiting)
            raise
        else:
            yield from (_outcome(*one, read, options.max_image_bytes) for one in waiting)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _held(waiting: Iterable[tuple[_Row, object]]) -> int:
    """Bytes of images that wait for others before them."""
    return sum(len(row.image) for row, _ in waiting if isinstance(row.image, bytes))


def _outcome(row: _Row, future: Future[bytes] | None, read: Callable[..., bytes], max_bytes: int) -> Outcome:
    image = row.image
    try:
        if future:
            image = future.result()
        elif isinstance(image, bytes):
            refuse_too_large(len(image), max_bytes)
    except DataError as error:
        image = error
        if future and error.code == ErrorCode.TOO_LARGE and max_bytes > AHEAD_BYTES:
            image = _read_now(row.image, read, max_bytes)
    assert not isinstance(image, str)
    return Outcome(row.image_id, row.next_offset, image, row.siblings)


def _read_now(location: bytes | str | DataError, read: Callable[..., bytes], max_bytes: int) -> bytes | DataError:
    try:
        return read(location, max_bytes=max_bytes)
    except DataError as error:
        return error


def _folder(shard: Shard, options: ReadOptions) -> str:
    """To which paths in the shard are relative."""
    return options.images_root or shard.path.rpartition("/")[0] or "/"
