"""Images in a column of a Parquet file: encoded bytes, or Hugging Face's struct of bytes and path.

A row's number is its identity. What it is called comes from a column of names, or from the path in the struct, and need
not be unique; a row without a name is called by its number.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import DataError

BATCH_ROWS = 32
BUFFER_BYTES = 1 << 20
"""Read of a column at a time; else all of it that a row group holds."""
NAMES = ("__key__", "key", "image_id", "id", "file_name", "filename", "path", "url")
"""Columns that may name a row, the first that is there."""
IMAGES = ("image", "jpg", "png", "webp", "bytes", "img")
"""Columns of bytes that are taken for images where there are several."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the file."""

    name: str
    image: bytes | None
    """Encoded; None where the column is null."""
    next_offset: int
    """Byte offset of the row group in which the next row lies; the file's size after the last."""
    siblings: dict[str, bytes]
    """What other columns hold, as text; those that are null left out."""


class Table:
    """A Parquet file of images. Raises DataError for one that holds none, or cannot be read.

    Args:
        file: to be read from any place.
        size: of the file in bytes.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        try:
            self._file = pq.ParquetFile(file, pre_buffer=False, buffer_size=BUFFER_BYTES)
        except (pa.ArrowException, OSError) as error:
            raise DataError("corrupt_shard", f"no Parquet file: {error}") from error
        groups = [self._file.metadata.row_group(group) for group in range(self._file.num_row_groups)]
        self._starts = [0, *accumulate(group.num_rows for group in groups)]
        self._offsets = [*map(_first_byte, groups), size]
        self._image = _image_column(self._file.schema_arrow)
        others = {*self._file.schema_arrow.names} - {self._image}
        self._name = next((name for name in NAMES if name in others), None)

    @property
    def groups(self) -> list[tuple[int, int]]:
        """Number of the first row, and byte offset, of each row group."""
        return list(zip(self._starts[:-1], self._offsets[:-1], strict=True))

    def rows(self, start: int = 0, siblings: Collection[str] = ()) -> Iterator[Row]:
        """The rows from number `start` on, with the columns `siblings`, if they are there, as text.

        Raises DataError where the file cannot be read on.
        """
        beside = sorted({*siblings} & {*self._file.schema_arrow.names} - {self._image})
        for number, batch in self._batches(start, [self._image, *beside]):
            names, columns = self._names(batch), [batch.column(name).to_pylist() for name in beside]
            for i, value in enumerate(batch.column(self._image).to_pylist()):
                image, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
                others = {name: _text(column[i]) for name, column in zip(beside, columns, strict=True)}
                found = {name: text for name, text in others.items() if text is not None}
                yield Row(_name(names[i] or path, number + i), image, self._offset_after(number + i), found)

    def names(self) -> Iterator[str]:
        """What the rows are called. Reads no images."""
        paths = self._file.schema_arrow.field(self._image).type
        has_paths = pa.types.is_struct(paths) and paths.get_field_index("path") >= 0
        column = f"{self._image}.path" if has_paths else self._image
        for number, batch in self._batches(0, [column] if has_paths else []):
            names, values = self._names(batch), batch.column(self._image).to_pylist() if has_paths else []
            for i in range(len(names)):
                path = values[i].get("path") if has_paths and values[i] else None
                yield _name(names[i] or path, number + i)

    def _names(self, batch: pa.RecordBatch) -> list[Any]:
        return batch.column(self._name).to_pylist() if self._name else [None] * len(batch)

    def _batches(self, start: int, columns: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Number of the first row, and these columns and that of names, a few rows at a time."""
        wanted = [*columns, *([self._name] if self._name and self._name not in columns else [])]
        number = self._starts[first := bisect_right(self._starts, start) - 1]
        try:
            for group in range(first, self._file.num_row_groups):  # one by one: one that is damaged spoils no others
                for batch in self._file.iter_batches(BATCH_ROWS, row_groups=[group], columns=wanted):
                    skipped = max(0, min(len(batch), start - number))
                    if skipped < len(batch):
                        yield number + skipped, batch.slice(skipped)
                    number += len(batch)
        except (pa.ArrowException, OSError) as error:
            raise DataError("corrupt_shard", f"cannot be read from row {number} on: {error}") from error

    def _offset_after(self, row: int) -> int:
        return self._offsets[bisect_right(self._starts, row + 1) - 1]


def _first_byte(group: pq.RowGroupMetaData) -> int:
    columns = [group.column(i) for i in range(group.num_columns)]
    first: int = min(column.dictionary_page_offset or column.data_page_offset for column in columns)
    return first


def _text(value: Any) -> bytes | None:
    """As it would stand in a file: what is nested as JSON."""
    if value is None or isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(value, default=str)).encode()


def _name(value: Any, number: int) -> str:
    return f"{number:09}" if value is None or value == "" else str(value)


def _image_column(schema: pa.Schema) -> str:
    candidates = [field.name for field in schema if _holds_bytes(field.type)]
    named = [name for name in IMAGES if name in candidates]
    if len(candidates) != 1 and not named:
        found = f"several columns of bytes: {', '.join(candidates)}" if candidates else "no column of bytes"
        raise DataError("no_image", f"{found}; images are looked for in one column of bytes, or one called image")
    return named[0] if named else candidates[0]


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))
