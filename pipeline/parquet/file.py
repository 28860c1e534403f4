"""A Parquet file that others made: its footer, and the values of one column after the other around what is damaged."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import DataError
from pipeline.schema import ErrorCode

BATCH_ROWS = 32
BUFFER_BYTES = 1 << 20
"""Read of a column at a time; else all of it that a row group holds."""


class CheckedParquetFile:
    """Raises DataError for what pyarrow cannot read, OSError for what the file itself cannot be read.

    pyarrow raises OSError for both; so the file remembers which ones were its own.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._recording = _ErrorRecordingFile(file)
        with self._pyarrow_boundary("no Parquet file"):
            self._file = pq.ParquetFile(self._recording, pre_buffer=False, buffer_size=BUFFER_BYTES)
            self.schema: pa.Schema = self._file.schema_arrow
            metadata = self._file.metadata
            self.num_rows: int = metadata.num_rows
            self._groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
            self._rows: list[int] = [group.num_rows for group in self._groups]
            self._first_rows: list[int] = [0, *accumulate(self._rows)]
            self._first_bytes: list[int] = [_first_byte(group) for group in self._groups]

    def __enter__(self) -> CheckedParquetFile:
        return self

    def __exit__(self, *_: object) -> None:
        """Leaves the file open: it is its opener's."""

    @property
    def num_groups(self) -> int:
        """Row groups."""
        return len(self._groups)

    @property
    def num_rows_in_groups(self) -> int:
        """Of all row groups, by themselves."""
        return self._first_rows[-1]

    def rows_in(self, group: int) -> int:
        """Of a row group."""
        return self._rows[group]

    def first_row(self, group: int) -> int:
        """Number of the first row of a row group."""
        return self._first_rows[group]

    def first_byte(self, group: int) -> int:
        """Byte offset of a row group."""
        return self._first_bytes[group]

    def entries_in(self, group: int, leaf: int) -> int:
        """Entries of all lists of a column in a row group; one that is empty or null counts as one."""
        with self._pyarrow_boundary("the footer is damaged"):
            return int(self._groups[group].column(leaf).num_values)

    def values(self, group: int, leaves: Sequence[int], count: int, skip: int = 0) -> Iterator[pa.Scalar | DataError]:
        """The values of a column in a row group from number `skip` on: always as many as `count` says in all.

        What cannot be read is a DataError: from the first damaged value to the end of the row group, as pyarrow reads
        it from its beginning only.
        """
        number, damage = skip, DataError(ErrorCode.CORRUPT_SHARD, "the row group ends before its last row")
        for batch_rows in (BATCH_ROWS, 1):  # one by one, once more, up to the damage
            try:
                for value in self._values(group, leaves, batch_rows, number):
                    if number == count:
                        return
                    yield value
                    number += 1
                break
            except DataError as error:
                damage = error
        damage = DataError(damage.code, f"row {number:,} of row group {group}: {damage.message}")
        for _ in range(number, count):
            yield damage

    def _values(self, group: int, leaves: Sequence[int], batch_rows: int, skip: int) -> Iterator[pa.Scalar]:
        with self._pyarrow_boundary("cannot be read"):
            batches = iter(
                self._file.reader.iter_batches(
                    batch_rows, row_groups=[group], column_indices=list(leaves), use_threads=False
                )
            )
        number = 0
        while True:
            with self._pyarrow_boundary("cannot be read"):
                batch = next(batches, None)
                values = [] if batch is None else list(batch.column(0)[max(0, skip - number) :])
            if batch is None:
                return
            yield from values
            number += len(batch)

    @contextlib.contextmanager
    def _pyarrow_boundary(self, what: str) -> Iterator[None]:
        """Around pyarrow on bytes that others wrote: whatever it raises says that these are damaged."""
        try:
            yield
        except Exception as error:  # whatever a damaged file makes pyarrow raise
            if self._recording.failure is not None:
                raise self._recording.failure from error
            raise DataError(ErrorCode.CORRUPT_SHARD, f"{what}: {type(error).__name__}: {error}") from error


class _ErrorRecordingFile(io.RawIOBase):
    """A file that remembers why it could not be read."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file, self._size = file, file.seek(0, io.SEEK_END)
        self.failure: Exception | None = None

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """As the file's."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As the file's."""
        return self._file.seek(offset, whence)

    def read(self, size: int | None = -1) -> bytes:
        """As the file's, and at most to its end: a damaged footer may ask for any number of bytes."""
        left = max(0, self._size - self._file.tell())
        try:
            return self._file.read(left if size is None or size < 0 else min(size, left))
        except (DataError, OSError) as error:
            self.failure = error
            raise


def _first_byte(group: pq.RowGroupMetaData) -> int:
    columns = [group.column(i) for i in range(group.num_columns)]
    return min((int(column.dictionary_page_offset or column.data_page_offset) for column in columns), default=0)
