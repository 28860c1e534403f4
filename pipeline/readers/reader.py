"""Reads shards: spans of work → Arrow tables of encoded images, in order, bounded by rows and bytes."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import pyarrow as pa

from pipeline.errors import ChangedError, DataError
from pipeline.filenames import printable
from pipeline.outcome import DEFAULTS, LARGE_SIBLINGS, MAX_SIBLING_BYTES, Outcome, ReadOptions, refuse_too_large
from pipeline.readers.table_rows import list_outcomes, parquet_outcomes
from pipeline.schema import ENCODED, ErrorCode
from pipeline.shards import Shard, ShardFormat, Span
from pipeline.storage.filesystems import is_remote
from pipeline.storage.shard_file import open_regular, open_shard, read_bounded
from pipeline.tar.rows import tar_outcomes

BLOCK_BYTES = 64 << 20

Row = dict[str, Any]


def read(spans: Iterable[Span], *, batch_images: int, options: ReadOptions = DEFAULTS) -> Iterator[pa.Table]:
    """Yields the rows of the spans as tables of `schema.ENCODED`, at most `batch_images` and about 64 MiB each.

    Whatever is wrong with a file becomes a row with an error code.
    """
    rows: list[Row] = []
    held_bytes, began = 0, time.perf_counter()
    for span in spans:
        for row in _rows(span, options):
            rows.append(row)
            held_bytes += len(row["image"] or b"") + len(row["siblings"] or "")
            if len(rows) == batch_images or held_bytes >= BLOCK_BYTES:
                yield _table(rows, began)
                rows, held_bytes, began = [], 0, time.perf_counter()
    if rows:
        yield _table(rows, began)


def _table(rows: list[Row], began: float) -> pa.Table:
    read_s = (time.perf_counter() - began) / len(rows)
    return pa.Table.from_pylist([row | {"read_s": read_s} for row in rows], schema=ENCODED)


def _row(span: Span, index: int, outcome: Outcome, *, last: bool) -> Row:
    error = outcome.image if isinstance(outcome.image, DataError) else None
    return {
        "image_id": outcome.image_id,
        "shard": printable(span.shard.path),
        "index": index,
        "shard_id": span.shard.id,
        "next_offset": outcome.next_offset,
        "last": last,
        "image": None if error else outcome.image,
        "error_code": error.code if error else None,
        "error_message": error.message if error else None,
        "num_bytes": outcome.lost_bytes if isinstance(outcome.image, DataError) else len(outcome.image),
        "siblings": _as_json(outcome.siblings) if outcome.siblings else None,
        "ignored": json.dumps(outcome.ignored) if outcome.ignored else None,
    }


def _as_json(siblings: Mapping[str, bytes]) -> str:
    """A JSON object of texts; what is JSON itself is taken for what it says, what only looks like it for text."""
    texts: dict[str, Any] = {name: data.decode("utf-8", "replace") for name, data in siblings.items()}
    if "json" in texts:
        with contextlib.suppress(ValueError, RecursionError, MemoryError):  # of NaN, of numbers too large, too deep
            return _dumps(texts | {"json": json.loads(texts["json"])})
    return _dumps(texts)


def _dumps(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair, as JSON writes it


def _rows(span: Span, options: ReadOptions) -> Iterator[Row]:
    """A row per outcome; which one is last is known by looking one ahead."""
    outcomes = (_bounded(outcome, options) for outcome in _until_damage(span, options))
    following = next(outcomes, None)
    index = span.start
    while following and index != span.stop:
        outcome, following = following, next(outcomes, None)
        yield _row(span, index, outcome, last=following is None)
        index += 1


def _bounded(outcome: Outcome, options: ReadOptions) -> Outcome:
    """Without an image that is too large, where its size was not known before it was read."""
    try:
        refuse_too_large(0 if isinstance(outcome.image, DataError) else len(outcome.image), options.max_image_bytes)
    except DataError as error:
        return replace(outcome, image=error)
    return outcome


def _until_damage(span: Span, options: ReadOptions) -> Iterator[Outcome]:
    """The outcomes of a span; at the end what cut it short, named as the shard."""
    shard, before, reached = span.shard, span.start, span.offset
    try:
        for outcome in _OUTCOMES[shard.format](span, options):
            yield outcome
            before, reached = before + 1, outcome.next_offset
        if not before:
            raise DataError(ErrorCode.EMPTY_SHARD, f"the {shard.format} holds no samples")
    except (DataError, OSError) as error:
        found = _as_data_error(error)
        if shard.format != ShardFormat.IMAGE and before:
            found = DataError(found.code, f"{found.message}; the {before:,} samples before were read")
        size = max(0, shard.size)
        lost_bytes = max(0, size - reached) if shard.format != ShardFormat.IMAGE else 0
        yield Outcome(_ending(shard), size, found, lost_bytes=lost_bytes)


def _ending(shard: Shard) -> str:
    """The image_id of the row that says what is wrong with a shard."""
    return shard.image_id or printable(shard.path).rpartition("/")[2]


def _image_outcome(span: Span, options: ReadOptions) -> Iterator[Outcome]:
    shard = span.shard
    refuse_too_large(shard.size, options.max_image_bytes)
    with open_shard(shard) as file:
        image = read_bounded(file, options.max_image_bytes)
    refuse_too_large(len(image), options.max_image_bytes)
    stem, ignored = shard.path.removesuffix(PurePath(shard.path).suffix), Counter[str]()
    beside = _files_beside(stem, options.siblings, ignored)
    yield Outcome(shard.image_id, max(0, shard.size), image, beside, ignored)


def _files_beside(stem: str, extensions: Collection[str], ignored: Counter[str]) -> dict[str, bytes]:
    """By extension; without those that are not there, no regular files, not to be read here, or, counted, too large."""
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


_OUTCOMES: Mapping[ShardFormat, Callable[[Span, ReadOptions], Iterator[Outcome]]] = {
    ShardFormat.IMAGE: _image_outcome,
    ShardFormat.TAR: tar_outcomes,
    ShardFormat.PARQUET: parquet_outcomes,
    ShardFormat.LIST: list_outcomes,
}


def _as_data_error(error: DataError | OSError) -> DataError:
    if isinstance(error, DataError):
        return error
    code = ErrorCode.CHANGED_INPUT if isinstance(error, ChangedError) else ErrorCode.UNREADABLE
    return DataError(code, error.strerror or str(error))
