"""Reads shards: spans of work → Arrow tables of encoded images, in order, bounded by rows and bytes."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, BinaryIO

import pyarrow as pa

from pipeline.errors import DataError
from pipeline.inputs import Form, Shard
from pipeline.ledger import Span
from pipeline.names import EXTENSIONS, printable
from pipeline.parquet import Table
from pipeline.schema import ENCODED, ErrorCode
from pipeline.storage import open_at
from pipeline.tar import Sample, samples

BLOCK_BYTES = 64 << 20

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found where a row should be."""

    image_id: str
    next_offset: int
    """Byte offset at which the next row begins."""
    image: bytes | DataError
    siblings: Mapping[str, bytes] = field(default_factory=dict)
    """What lies beside the image, by extension."""


def read(spans: Iterable[Span], *, batch_images: int, siblings: Collection[str] = ()) -> Iterator[pa.Table]:
    """Yields the rows of the spans as tables of `schema.ENCODED`, at most `batch_images` and about 64 MiB each.

    Whatever is wrong with a file becomes a row with an error code.

    Args:
        siblings: extensions of what to keep beside an image: members of its sample, files of its name. In a Parquet
            file, columns.
    """
    rows: list[Row] = []
    held_bytes, began = 0, time.perf_counter()
    for span in spans:
        for row in _rows(span, siblings):
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


def open_shard(shard: Shard, offset: int = 0, *, skim: bool = False) -> BinaryIO:
    """The shard for reading, as `storage.open_at` opens it. Raises OSError."""
    if shard.size < 0:  # opening a pipe would wait for ever
        raise FileNotFoundError(2, "no such file, or not a regular one")
    return open_at(shard.path, offset, skim=skim)


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
    }


def _as_json(siblings: Mapping[str, bytes]) -> str:
    """A JSON object of texts; what is JSON itself is taken for what it says."""
    texts: dict[str, Any] = {name: data.decode("utf-8", "replace") for name, data in siblings.items()}
    with contextlib.suppress(ValueError):
        texts["json"] = json.loads(texts.get("json", ""))
    return json.dumps(texts, ensure_ascii=False)


def _rows(span: Span, siblings: Collection[str]) -> Iterator[Row]:
    """A row per outcome; which one is last is known by looking one ahead."""
    outcomes = _until_damage(span, siblings)
    following = next(outcomes, None)
    index = span.start
    while following and index != span.stop:
        outcome, following = following, next(outcomes, None)
        yield _row(span, index, outcome, last=following is None)
        index += 1


def _until_damage(span: Span, siblings: Collection[str]) -> Iterator[Outcome]:
    """The outcomes of a span; at the end what cut it short, named as the shard."""
    shard, before = span.shard, span.start
    try:
        for outcome in _OUTCOMES[shard.form](span, siblings):
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


def _image_outcome(span: Span, siblings: Collection[str]) -> Iterator[Outcome]:
    with open_shard(span.shard) as file:
        image = file.read()
    stem = span.shard.path.removesuffix(PurePath(span.shard.path).suffix)
    yield Outcome(span.shard.image_id, max(0, span.shard.size), image, _files_beside(stem, siblings))


def _files_beside(stem: str, extensions: Collection[str]) -> dict[str, bytes]:
    found = {}
    for extension in extensions:
        with contextlib.suppress(FileNotFoundError), open_at(f"{stem}.{extension}") as file:
            found[extension] = file.read()
    return found


def _tar_outcomes(span: Span, siblings: Collection[str]) -> Iterator[Outcome]:
    shard = span.shard
    seen = _keys_before(span) if span.offset and span.doubled is None else set()
    with open_shard(shard, span.offset) as file:
        walk = samples(
            file, size=shard.size, offset=span.offset, wanted={*EXTENSIONS, *map(str.lower, siblings)}.__contains__
        )
        for index, sample in enumerate(walk, span.start):
            is_doubled = sample.key in seen if span.doubled is None else index in span.doubled
            beside = {name: data for name in siblings if (data := sample.files.get(name.lower())) is not None}
            yield Outcome(sample.key, sample.stop, _image(sample, is_doubled=is_doubled), beside)
            seen.add(sample.key)


def _parquet_outcomes(span: Span, siblings: Collection[str]) -> Iterator[Outcome]:
    with open_shard(span.shard) as file:
        for row in Table(file, span.shard.size).rows(span.start, siblings):
            missing = DataError(ErrorCode.NO_IMAGE, "the row's image is null")
            image = missing if row.image is None else row.image
            yield Outcome(printable(row.name), row.next_offset, image, row.siblings)


_OUTCOMES: Mapping[Form, Callable[[Span, Collection[str]], Iterator[Outcome]]] = {
    Form.IMAGE: _image_outcome,
    Form.TAR: _tar_outcomes,
    Form.PARQUET: _parquet_outcomes,
}


def _image(sample: Sample, *, is_doubled: bool) -> bytes | DataError:
    if is_doubled:
        return DataError(ErrorCode.DUPLICATE_KEY, f"{sample.key!r} came before in the same tar")
    for extension, data in sample.files.items():
        if data is not None and extension in EXTENSIONS:
            return data
    members = ", ".join(f".{extension}" if extension else "no extension" for extension in sample.files)
    return DataError(ErrorCode.NO_IMAGE, f"the sample has no image: {members}")


def _as_data_error(error: DataError | OSError) -> DataError:
    return error if isinstance(error, DataError) else DataError(ErrorCode.UNREADABLE, error.strerror or str(error))


def _keys_before(span: Span) -> set[str]:
    """Keys of the rows before a span, from the tar's headers alone: a key may be doubled across an interruption."""
    keys = set()
    with open_shard(span.shard, skim=True) as file:
        for sample in samples(file, size=span.shard.size, wanted=lambda _: False):
            if sample.start >= span.offset:
                break
            keys.add(sample.key)
    return keys


def keys(shard: Shard) -> Iterator[str]:
    """What the rows of a shard are called, in order. Reads no images."""
    found = False
    try:
        if shard.form == Form.IMAGE:
            yield shard.image_id
            return
        with open_shard(shard, skim=True) as file:
            if shard.form == Form.TAR:
                headers = samples(file, size=shard.size, wanted=lambda _: False)
                names = (sample.key for sample in headers)
            else:
                names = (printable(name) for name in Table(file, shard.size).names())
            for name in names:
                found = True
                yield name
    except (DataError, OSError):
        found = False
    if not found:
        yield _ending(shard)
