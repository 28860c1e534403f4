"""Reads shards: spans → Arrow tables of encoded images, in order, bounded by rows and bytes."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import pyarrow as pa

from pipeline.errors import ChangedError, DataError
from pipeline.filenames import printable
from pipeline.read_options import DEFAULTS, LARGE_SIBLINGS, MAX_SIBLING_BYTES, ReadOptions, check_size
from pipeline.readers.table_rows import read_list, read_parquet
from pipeline.schema import ENCODED, EncodedRow, ErrorCode
from pipeline.shards import Shard, ShardFormat, Span
from pipeline.storage.filesystems import is_remote
from pipeline.storage.shard_file import open_regular, open_shard, read_bounded
from pipeline.tar.rows import read_tar

BLOCK_BYTES = 64 << 20

Row = dict[str, Any]


def read(spans: Iterable[Span], *, batch_size: int, options: ReadOptions = DEFAULTS) -> Generator[pa.Table]:
    """Yields the rows of the spans as tables of `schema.ENCODED` of at most `batch_size` rows and about 64 MiB.

    Any problem with a file becomes a row with an error code.
    """
    rows: list[Row] = []
    held_bytes, began = 0, time.perf_counter()
    for span in spans:
        for row in _rows(span, options):
            rows.append(row)
            held_bytes += len(row["image"] or b"") + len(row["siblings"] or "")
            if len(rows) == batch_size or held_bytes >= BLOCK_BYTES:
                yield _table(rows, began)
                rows, held_bytes, began = [], 0, time.perf_counter()
    if rows:
        yield _table(rows, began)


def _table(rows: list[Row], began: float) -> pa.Table:
    read_s = (time.perf_counter() - began) / len(rows)
    return pa.Table.from_pylist([row | {"read_s": read_s} for row in rows], schema=ENCODED)


def _row(span: Span, index: int, encoded_row: EncodedRow, *, last: bool) -> Row:
    error = encoded_row.image if isinstance(encoded_row.image, DataError) else None
    return {
        "image_id": encoded_row.image_id,
        "shard": printable(span.shard.path),
        "index": index,
        "shard_id": span.shard.id,
        "next_offset": encoded_row.next_offset,
        "last": last,
        "image": None if error else encoded_row.image,
        "error_code": error.code if error else None,
        "error_message": error.message if error else None,
        "num_bytes": encoded_row.lost_bytes if isinstance(encoded_row.image, DataError) else len(encoded_row.image),
        "siblings": _as_json(encoded_row.siblings) if encoded_row.siblings else None,
        "ignored": json.dumps(encoded_row.ignored) if encoded_row.ignored else None,
    }


def _as_json(siblings: Mapping[str, bytes]) -> str:
    """Encodes siblings as a JSON object of texts; valid JSON under the extension json is embedded as JSON."""
    texts: dict[str, Any] = {name: data.decode("utf-8", "replace") for name, data in siblings.items()}
    if "json" in texts:
        with contextlib.suppress(ValueError, RecursionError, MemoryError):  # NaN, huge numbers, deep nesting
            return _dumps(texts | {"json": json.loads(texts["json"])})
    return _dumps(texts)


def _dumps(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode()  # half of a surrogate pair, which JSON can express


def _rows(span: Span, options: ReadOptions) -> Iterator[Row]:
    """Yields the rows of a span; reads one row ahead to know which is the shard's last."""
    encoded_rows = (_bounded(encoded_row, options) for encoded_row in _until_damage(span, options))
    following = next(encoded_rows, None)
    index = span.start
    while following and index != span.stop:
        encoded_row, following = following, next(encoded_rows, None)
        yield _row(span, index, encoded_row, last=following is None)
        index += 1


def _bounded(encoded_row: EncodedRow, options: ReadOptions) -> EncodedRow:
    """Replaces an image that turned out to be too large after it was read by an error."""
    try:
        check_size(0 if isinstance(encoded_row.image, DataError) else len(encoded_row.image), options.max_image_bytes)
    except DataError as error:
        return replace(encoded_row, image=error)
    return encoded_row


def _until_damage(span: Span, options: ReadOptions) -> Iterator[EncodedRow]:
    """Yields the rows of a span, and as its last row the error that ended it, if any, named after the shard."""
    shard, before, reached = span.shard, span.start, span.offset
    try:
        for encoded_row in _READERS[shard.format](span, options):
            yield encoded_row
            before, reached = before + 1, encoded_row.next_offset
        if not before:
            raise DataError(ErrorCode.EMPTY_SHARD, f"the {shard.format} holds no samples")
    except (DataError, OSError) as error:
        found = _as_data_error(error)
        if shard.format != ShardFormat.IMAGE and before:
            found = DataError(found.code, f"{found.message}; the {before:,} samples before were read")
        size = max(0, shard.size)
        lost_bytes = max(0, size - reached) if shard.format != ShardFormat.IMAGE else 0
        yield EncodedRow(_ending(shard), size, found, lost_bytes=lost_bytes)


def _ending(shard: Shard) -> str:
    """Returns the image_id of a row that reports an error of the shard."""
    return shard.image_id or printable(shard.path).rpartition("/")[2]


def _read_image_file(span: Span, options: ReadOptions) -> Iterator[EncodedRow]:
    shard = span.shard
    check_size(shard.size, options.max_image_bytes)
    with open_shard(shard) as file:
        image = read_bounded(file, options.max_image_bytes)
    stem, ignored = shard.path.removesuffix(PurePath(shard.path).suffix), Counter[str]()
    beside = _files_beside(stem, options.siblings, ignored)
    yield EncodedRow(shard.image_id, max(0, shard.size), image, beside, ignored)


def _files_beside(stem: str, extensions: Collection[str], ignored: Counter[str]) -> dict[str, bytes]:
    """Reads the siblings of an image file by extension; leaves out unreadable ones, and counts those too large."""
    found = {}
    for extension in extensions:
        path = f"{stem}.{extension}"
        with contextlib.suppress(FileNotFoundError if is_remote(path) else OSError), open_regular(path) as file:
            data = read_bounded(file, MAX_SIBLING_BYTES)
            if len(data) <= MAX_SIBLING_BYTES:
                found[extension] = data
            else:
                ignored[LARGE_SIBLINGS] += 1
    return found


_READERS: Mapping[ShardFormat, Callable[[Span, ReadOptions], Iterator[EncodedRow]]] = {
    ShardFormat.IMAGE: _read_image_file,
    ShardFormat.TAR: read_tar,
    ShardFormat.PARQUET: read_parquet,
    ShardFormat.LIST: read_list,
}


def _as_data_error(error: DataError | OSError) -> DataError:
    if isinstance(error, DataError):
        return error
    code = ErrorCode.CHANGED_INPUT if isinstance(error, ChangedError) else ErrorCode.UNREADABLE
    return DataError(code, error.strerror or str(error))
