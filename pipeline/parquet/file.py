"""Reads the footer of a Parquet file, and its columns one by one, so that damage is confined to one of them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import DataError
from pipeline.parquet.footer_check import CheckedMetadata, read_footer
from pipeline.schema import ErrorCode

BATCH_ROWS = 32
BUFFER_BYTES = 1 << 20
"""Number of bytes of a column read at a time; without it, pyarrow reads the whole column chunk."""


class CheckedParquetFile:
    """A Parquet file that raises DataError for damaged contents and OSError if the file itself cannot be read.

    pyarrow raises OSError for both, so the errors of the file are recorded.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._recording = _ErrorRecordingFile(file)
        footer = read_footer(file)
        with self._pyarrow_boundary("no Parquet file"):
            self._checked = CheckedMetadata(footer)
            self._file = pq.ParquetFile(
                self._recording, metadata=self._checked.metadata, pre_buffer=False, buffer_size=BUFFER_BYTES
            )
            self.schema: pa.Schema = self._file.schema_arrow
            self.num_rows: int = self._checked.metadata.num_rows
            self._rows: list[int] = [group.num_rows for group in self._checked.groups]
            self._first_rows: list[int] = [0, *accumulate(self._rows)]

    def __enter__(self) -> CheckedParquetFile:
        return self

    def __exit__(self, *_: object) -> None:
        """Leaves the file open, as it belongs to the caller."""

    @property
    def num_groups(self) -> int:
        """Number of row groups."""
        return len(self._rows)

    @property
    def num_rows_in_groups(self) -> int:
        """Total number of rows according to the row groups."""
        return self._first_rows[-1]

    def rows_in(self, group: int) -> int:
        """Returns the number of rows in a row group."""
        return self._rows[group]

    def first_row(self, group: int) -> int:
        """Returns the index of the first row of a row group."""
        return self._first_rows[group]

    def first_byte(self, group: int, leaf: int) -> int:
        """Returns the byte offset of a column in a row group. Raises DataError if its description is damaged."""
        with self._pyarrow_boundary("the footer is damaged"):
            column = self._checked.column(group, leaf)
            return int(column.dictionary_page_offset or column.data_page_offset)

    def unsound_groups(self, leaf: int) -> frozenset[int]:
        """Returns the row groups in which a column's description is damaged. Raises DataError if it is in all."""
        with self._pyarrow_boundary("the footer is damaged"):
            unsound = self._checked.unsound_groups(leaf)
            if unsound and len(unsound) == self.num_groups:
                self._checked.column(0, leaf)
            return unsound

    def entries_in(self, group: int, leaf: int) -> int:
        """Returns the number of list entries of a column in a row group; an empty or null list counts as one."""
        with self._pyarrow_boundary("the footer is damaged"):
            return int(self._checked.column(group, leaf).num_values)

    def values(self, group: int, leaves: Sequence[int], count: int, skip: int = 0) -> Iterator[pa.Scalar | DataError]:
        """Yields the values of a column in a row group from index `skip` to `count`, which it always completes.

        From the first damaged value to the end of the row group each value is a DataError, because pyarrow reads a
        row group only from its beginning.
        """
        number, damage = skip, DataError(ErrorCode.CORRUPT_SHARD, "the row group ends before its last row")
        for batch_rows in (BATCH_ROWS, 1):  # again one by one, up to the damage
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
        """The boundary around pyarrow's parser of foreign bytes: turns every exception into a DataError."""
        try:
            yield
        except DataError:
            raise
        except Exception as error:  # pyarrow raises many kinds for damaged files
            if self._recording.failure is not None:
                raise self._recording.failure from error
            raise DataError(ErrorCode.CORRUPT_SHARD, f"{what}: {type(error).__name__}: {error}") from error


class _ErrorRecordingFile(io.RawIOBase):
    """A file that records the error with which reading it failed."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file, self._size = file, file.seek(0, io.SEEK_END)
        self.failure: Exception | None = None

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def tell(self) -> int:
        """Returns the position in the file."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Seeks in the file."""
        return self._file.seek(offset, whence)

    def read(self, size: int | None = -1) -> bytes:
        """Reads at most to the end of the file: a damaged footer may ask for any number of bytes."""
        left = max(0, self._size - self._file.tell())
        try:
            return self._file.read(left if size is None or size < 0 else min(size, left))
        except (DataError, OSError) as error:
            self.failure = error
            raise
