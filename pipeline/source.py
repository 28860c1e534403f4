"""Reads shards: spans of work → Arrow tables of encoded images, in order, bounded by rows and bytes."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

import pyarrow as pa

from pipeline.errors import DataError
from pipeline.inputs import Form, Shard
from pipeline.ledger import Span
from pipeline.names import printable
from pipeline.outcome import DEFAULTS, Outcome, ReadOptions
from pipeline.parquet import Table
from pipeline.schema import ENCODED, ErrorCode
from pipeline.shard_file import open_shard
from pipeline.storage import open_at
from pipeline.tar_rows import tar_outcomes, tar_rows

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
        "num_bytes": 0 if isinstance(outcome.image, DataError) else len(outcome.image),
        "siblings": _as_json(outcome.siblings) if outcome.siblings else None,
        "ignored": json.dumps(outcome.ignored) if outcome.ignored else None,
    }


def _as_json(siblings: Mapping[str, bytes]) -> str:
    """A JSON object of texts; what is JSON itself is taken for what it says."""
    texts: dict[str, Any] = {name: data.decode("utf-8", "replace") for name, data in siblings.items()}
    with contextlib.suppress(ValueError):
        texts["json"] = json.loads(texts.get("json", ""))
    return json.dumps(texts, ensure_ascii=False)


def _rows(span: Span, options: ReadOptions) -> Iterator[Row]:
    """A row per outcome; which one is last is known by looking one ahead."""
    outcomes = _until_damage(span, options)
    following = next(outcomes, None)
    index = span.start
    while following and index != span.stop:
        outcome, following = following, next(outcomes, None)
        yield _row(span, index, outcome, last=following is None)
        index += 1


def _until_damage(span: Span, options: ReadOptions) -> Iterator[Outcome]:
    """The outcomes of a span; at the end what cut it short, named as the shard."""
    shard, before = span.shard, span.start
    try:
        for outcome in _OUTCOMES[shard.form](span, options):
            yield outcome
            before += 1
        if not before:
            raise DataError(ErrorCode.EMPTY_SHARD, f"the {shard.form} holds no samples")
    except (DataError, OSError) as error:
        found = _as_data_error(error)
        if shard.form != Form.IMAGE and before:
            found = DataError(found.code, f"{found.message}; the {before:,} samples before were read")
        yield Outcome(_ending(shard), max(0, shard.size), found)


def _ending(shard: Shard) -> str:
    """The image_id of the row that says what is wrong with a shard."""
    return shard.image_id or printable(shard.path).rpartition("/")[2]


def _image_outcome(span: Span, options: ReadOptions) -> Iterator[Outcome]:
    with open_shard(span.shard) as file:
        image = file.read()
    stem = span.shard.path.removesuffix(PurePath(span.shard.path).suffix)
    yield Outcome(span.shard.image_id, max(0, span.shard.size), image, _files_beside(stem, options.siblings))


def _files_beside(stem: str, extensions: Collection[str]) -> dict[str, bytes]:
    found = {}
    for extension in extensions:
        with contextlib.suppress(FileNotFoundError), open_at(f"{stem}.{extension}") as file:
            found[extension] = file.read()
    return found


def _parquet_outcomes(span: Span, options: ReadOptions) -> Iterator[Outcome]:
    with open_shard(span.shard) as file:
        for row in Table(file, span.shard.size).rows(span.start, options.siblings):
            missing = DataError(ErrorCode.NO_IMAGE, "the row's image is null")
            image = missing if row.image is None else row.image
            yield Outcome(printable(row.name), row.next_offset, image, row.siblings)


_OUTCOMES: Mapping[Form, Callable[[Span, ReadOptions], Iterator[Outcome]]] = {
    Form.IMAGE: _image_outcome,
    Form.TAR: tar_outcomes,
    Form.PARQUET: _parquet_outcomes,
}


def _as_data_error(error: DataError | OSError) -> DataError:
    return error if isinstance(error, DataError) else DataError(ErrorCode.UNREADABLE, error.strerror or str(error))


def keys(shard: Shard, options: ReadOptions = DEFAULTS) -> Iterator[str]:
    """What the rows of a shard are called, in order. Reads no images."""
    found = False
    try:
        for name in _names(shard, options):
            found = True
            yield name
    except (DataError, OSError):
        found = False
    if not found:
        yield _ending(shard)


def _names(shard: Shard, options: ReadOptions) -> Iterator[str]:
    if shard.form == Form.IMAGE:
        yield shard.image_id
    elif shard.form == Form.TAR:
        yield from (row.image_id for row in tar_rows(shard, options))
    else:
        with open_shard(shard, skim=True) as file:
            yield from (printable(name) for name in Table(file, shard.size).names())
