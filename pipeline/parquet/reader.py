"""Reads images from a column of a Parquet file: encoded bytes in any Arrow type, base64, or paths and URLs.

Images are identified by index: that of the row, or in a column of lists that of the entry among all entries. The
image_id comes from a column of names or from the path in Hugging Face's struct, and need not be unique. A row without
a name has its index as image_id; an entry of a list has its row's name and its position in the list.

Each column is read by itself, so that damage to one does not affect the others.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice, repeat
from typing import BinaryIO

import pyarrow as pa

from pipeline.errors import DataError
from pipeline.filenames import printable
from pipeline.parquet.columns import (
    Column,
    ImageKind,
    find_image_column,
    find_key_column,
    has_image_column,
    sibling_columns,
)
from pipeline.parquet.file import CheckedParquetFile
from pipeline.parquet.values import Image, extract_images, key_text, sibling_text
from pipeline.read_options import DEFAULTS, ReadOptions
from pipeline.schema import ErrorCode

ROWS_PER_BYTE = 16
"""Maximum number of rows per byte of a file: a footer that claims more is damaged."""


@dataclass(frozen=True, slots=True)
class Row:
    """An image of the file: a row, or an entry of a list in it."""

    name: str
    image: Image
    """Encoded bytes, a path or URL, or an error; None for null."""
    next_offset: int
    """Byte offset of the images in the row group that holds the next row; the file's size for the last row."""
    siblings: dict[str, bytes]
    """Values of other columns as text, without nulls."""


def has_images(file: BinaryIO, options: ReadOptions) -> bool:
    """Returns whether a Parquet file has a column of images. True if it is damaged, as its row reports the damage."""
    try:
        with CheckedParquetFile(file) as parquet:
            return has_image_column(parquet.schema, options.image_column, options.key_column)
    except DataError:
        return True


class ParquetShard:
    """A Parquet file of images. Raises DataError if it has no images or cannot be read.

    Args:
        file: the file, opened for random access.
        size: size of the file in bytes.
        options: names of the columns.
    """

    def __init__(self, file: BinaryIO, size: int, options: ReadOptions = DEFAULTS) -> None:
        self._file = CheckedParquetFile(file)
        schema = self._file.schema
        self._image = find_image_column(schema, options.image_column, options.key_column)
        # A column that is read alone has structs with a single field, so each index is 0.
        self._inside = [0] * (len(self._image.path) - 1)
        self._key = find_key_column(schema, options.key_column, self._image)
        self._schema = schema
        groups, leaf = range(self._file.num_groups), self._image.leaves[0]
        self._unsound = self._file.unsound_groups(leaf)
        counts = [self._count(group, size) for group in groups]
        self._starts = [0, *accumulate(counts)]
        self._offsets = list[int]()
        for group in groups:  # an unknown offset is that of the row group before
            before = self._offsets[-1] if self._offsets else 0
            self._offsets.append(before if group in self._unsound else self._file.first_byte(group, leaf))
        self._offsets.append(size)

    @property
    def groups(self) -> list[tuple[int, int]]:
        """Index of the first image, and its byte offset, of each row group."""
        return list(zip(self._starts[:-1], self._offsets[:-1], strict=True))

    def rows(self, start: int = 0, siblings: Collection[str] = ()) -> Iterator[Row]:
        """Yields the images from index `start` on, with existing columns in `siblings` as text.

        A damaged image is a row with an error. Raises DataError if the file has fewer rows than its footer claims,
        OSError if it cannot be read.
        """
        beside = sibling_columns(self._schema, siblings, self._image)
        for group in range(bisect_right(self._starts, start) - 1, self._file.num_groups):
            first = max(start, self._starts[group])
            entries = self._entries(group, first - self._starts[group], beside)
            for number, (name, image, others) in enumerate(entries, first):
                yield Row(name, image, self._offsets[bisect_right(self._starts, number + 1) - 1], others)
        self._refuse_missing()

    def _refuse_missing(self) -> None:
        if self._file.num_rows > self._file.num_rows_in_groups:
            counts = f"{self._file.num_rows:,} rows, but its row groups have {self._file.num_rows_in_groups:,}"
            raise DataError(ErrorCode.CORRUPT_SHARD, f"the footer claims {counts}")

    def _count(self, group: int, size: int) -> int:
        """Returns the number of images in a row group, from the footer except for lists of lists of bytes."""
        count, leaf = self._file.rows_in(group), self._image.leaves[0]
        if group in self._unsound:
            pass  # how many entries its lists have is unknown; a row each reports the damage
        elif self._image.image_kind != ImageKind.NUMBERS:  # in which each byte is an entry
            entries = self._file.entries_in(group, leaf)
            count = entries if self._image.in_lists else max(count, entries)
        elif self._image.in_lists:
            lists = self._file.values(group, self._image.leaves, count)
            count = sum(1 if isinstance(v, DataError) else len(extract_images(v, self._inside)) for v in lists)
        if not 0 <= count <= ROWS_PER_BYTE * size:
            raise DataError(ErrorCode.CORRUPT_SHARD, f"the footer claims {count:,} images in {size:,} bytes")
        return count

    def _count_of(self, group: int) -> int:
        return self._starts[group + 1] - self._starts[group]

    def _entries(
        self, group: int, skip: int, beside: Sequence[Column]
    ) -> Iterator[tuple[str, Image, dict[str, bytes]]]:
        """Yields name, image and siblings for the images of a row group after the first `skip`."""
        if self._image.in_lists:
            yield from islice(self._list_entries(group, beside), skip, None)
            return
        count, number = self._count_of(group), self._starts[group] + skip
        images = self._images(group, skip, count)
        is_text = self._image.image_kind == ImageKind.TEXT  # such a column holds the images as paths
        keys, paths = self._keys(group, skip, count), repeat(None) if is_text else self._paths(group, skip, count)
        others = self._siblings(group, skip, count, beside)
        for i, (image, key, path, found) in enumerate(zip(images, keys, paths, others)):  # noqa: B905
            where = image if isinstance(image, str) else path
            yield _name(key, where, number + i), image if image is not None else path, found

    def _list_entries(self, group: int, beside: Sequence[Column]) -> Iterator[tuple[str, Image, dict[str, bytes]]]:
        rows, count, found = self._file.rows_in(group), self._count_of(group), 0
        values = self._file.values(group, self._image.leaves, rows)
        first = self._file.first_row(group)
        damage = DataError(ErrorCode.CORRUPT_SHARD, "its row group holds fewer images than its footer says")
        columns = zip(values, self._keys(group, 0, rows), self._siblings(group, 0, rows, beside), strict=True)
        for row, (value, key, others) in enumerate(columns, first):
            if isinstance(value, DataError):
                damage = value
                break
            images = extract_images(value, self._inside)
            if found + len(images) > count:
                damage = DataError(ErrorCode.CORRUPT_SHARD, "its row group holds more images than its footer says")
                break
            is_missing = images == [None]
            for place, image in enumerate(images):
                name = _name(key, None, row)
                yield name if is_missing else f"{name}.{place}", image, others
            found += len(images)
        for i in range(found, count):
            yield _name(None, None, self._starts[group] + i), damage, {}

    def _images(self, group: int, skip: int, count: int) -> Iterator[Image]:
        leaves = self._image.leaves_of("bytes") if self._image.image_kind == ImageKind.STRUCT else self._image.leaves
        if not leaves:
            yield from [None] * (count - skip)
            return
        for value in self._file.values(group, leaves, count, skip):
            yield value if isinstance(value, DataError) else extract_images(value, self._inside)[0]

    def _paths(self, group: int, skip: int, count: int) -> Iterator[str | None]:
        """Yields the paths in Hugging Face's struct, or in the column itself; None if there is none."""
        leaves = self._image.leaves if self._image.image_kind == ImageKind.TEXT else self._image.leaves_of("path")
        if not leaves:
            yield from [None] * (count - skip)
            return
        for value in self._file.values(group, leaves, count, skip):
            found = None if isinstance(value, DataError) else extract_images(value, self._inside)[0]
            yield found if isinstance(found, str) else None

    def _keys(self, group: int, skip: int, count: int) -> Iterator[str | None]:
        if not self._key:
            yield from [None] * (count - skip)
            return
        inside = [0] * (len(self._key.path) - 1)
        for value in self._file.values(group, self._key.leaves, count, skip):
            yield None if isinstance(value, DataError) else key_text(_below(value, inside))

    def _siblings(self, group: int, skip: int, count: int, beside: Sequence[Column]) -> Iterator[dict[str, bytes]]:
        columns = [self._file.values(group, column.leaves, count, skip) for column in beside]
        for _ in range(skip, count):
            values = ((column.name, next(read)) for column, read in zip(beside, columns, strict=True))
            texts = ((name, None if isinstance(value, DataError) else sibling_text(value)) for name, value in values)
            yield {name: text for name, text in texts if text is not None}


def _below(value: pa.Scalar, path: Sequence[int]) -> pa.Scalar | None:
    for index in path:
        if not value.is_valid:
            return None
        value = value[index] if pa.types.is_struct(value.type) else value
    return value


def _name(key: str | None, path: str | None, number: int) -> str:
    return key or (printable(path) if path else f"{number:09}")
