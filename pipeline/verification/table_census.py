"""Counts the rows of Parquet files and lists for `verify`, by pyarrow's footers and datasets, `csv` and lines.

The column of images is not determined: if several columns are possible, each of their counts is accepted.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipeline.filenames import printable
from pipeline.parquet.footer_check import CheckedMetadata, read_footer
from pipeline.read_options import ReadOptions
from pipeline.readers.lists import PATH_COLUMNS

PARQUET_KEYS = ("__key__", "key", "image_id", "id", "file_name", "filename", "path", "url")
_LEVELS = frozenset(["list", "element", "item", "array", "bag", "array_element", "key_value", "map"])
LIST_KEYS = ("__key__", "key", "image_id", "id")


@dataclass(frozen=True, slots=True)
class TableContents:
    """The independent count of a table's contents."""

    counts: frozenset[int]
    """Possible numbers of rows; empty if the table is damaged."""
    keys: Sequence[str | None] = ()
    """image_id of each row, if there is one for each line or row of the table; None if another column has it."""


def count_parquet(file: BinaryIO, options: ReadOptions) -> TableContents:
    """Counts the rows of a Parquet file from its footer, and reads the column of names. Raises OSError."""
    try:
        checked = CheckedMetadata(read_footer(file))
        table = pq.ParquetFile(file, metadata=checked.metadata, pre_buffer=False)
        return TableContents(_counts(table, checked, options), _keys_of_parquet(table, file, options))
    except Exception as error:  # the boundary around pyarrow's parser of foreign bytes
        if isinstance(error, OSError) and error.errno is not None:  # the file itself cannot be read
            raise
        return TableContents(frozenset())


def _counts(table: pq.ParquetFile, checked: CheckedMetadata, options: ReadOptions) -> frozenset[int]:
    """Returns the possible counts from the footer: rows, and entries of list columns, of binary columns if any."""
    rows = sum(group.num_rows for group in checked.groups)
    of_bytes, of_others, wanted = set[int](), set[int](), _fields(options.image_column)
    for i in range(table.metadata.num_columns):
        column = table.schema.column(i)
        lists = column.max_repetition_level
        is_numbers = column.physical_type.startswith("INT")
        if _fields(column.path)[: len(wanted)] != wanted:
            continue
        if is_numbers and lists > 1:
            return frozenset()  # lists of lists of bytes: the footer counts the bytes
        groups = range(len(checked.groups))
        count = sum(checked.column(group, i).num_values for group in groups) if lists > is_numbers else rows
        is_text = column.logical_type.type == "STRING" or column.path in {*PARQUET_KEYS, options.key_column}
        (of_bytes if column.physical_type.endswith("BYTE_ARRAY") and not is_text else of_others).add(count)
    return frozenset(of_bytes or of_others | {rows})


def _fields(path: str) -> list[str]:
    """Returns a dotted name without the parts that Parquet adds for the levels of lists and maps."""
    return [part for part in path.split(".") if part and part not in _LEVELS]


def _keys_of_parquet(table: pq.ParquetFile, file: BinaryIO, options: ReadOptions) -> list[str | None]:
    names = table.schema_arrow.names
    name = options.key_column or next((key for key in PARQUET_KEYS if key in names), "")
    if names.count(name) != 1 or name == options.image_column:
        return []
    kind = table.schema_arrow.field(name).type
    if not (pa.types.is_string(kind) or pa.types.is_integer(kind)):
        return []
    file.seek(0)
    fragment = ds.ParquetFileFormat().make_fragment(pa.PythonFile(file, mode="r"))
    values = (value for batch in fragment.to_batches(columns=[name], use_threads=False) for value in batch.column(0))
    return [_text(value.as_py()) for value in values]


def count_list(file: BinaryIO, kind: str, options: ReadOptions) -> TableContents:
    """Counts the rows of a list. Raises OSError.

    Args:
        file: the list.
        kind: extension of the list.
        options: names of the columns.
    """
    if kind in ("csv", "tsv"):
        return _count_csv(file, "\t" if kind == "tsv" else ",", options)
    is_json = kind in ("jsonl", "ndjson")
    lines = (line.removeprefix(b"\xef\xbb\xbf") if not number else line for number, line in enumerate(file))
    keys = [_key_of_json(line, options) if is_json else _decoded(line) for line in lines if line.strip()]
    return TableContents(frozenset([len(keys)]), keys)


def _count_csv(file: BinaryIO, delimiter: str, options: ReadOptions) -> TableContents:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="\n")
    try:
        records = list(_records(text, delimiter))
    except csv.Error:
        return TableContents(frozenset())
    finally:
        text.detach()
    header = records[0] if records else []
    if len(header) == 1 and not options.path_column:  # it may be a column name or a path
        return TableContents(frozenset([len(records), len(records) - 1]))
    name = options.key_column or next((key for key in LIST_KEYS if key in header), "")
    paths = [
        at for at, column in enumerate(header) if column.strip().lower() in (options.path_column.lower(), *PATH_COLUMNS)
    ]
    if any("\n" in record[at] for record in records for at in paths if at < len(record)):
        return TableContents(frozenset())  # an unclosed quote: `csv` cannot tell how many lines are damaged
    if header.count(name) != 1:
        return TableContents(frozenset([max(0, len(records) - 1)]))
    at = header.index(name)
    keys = [_text(record[at]) if at < len(record) else None for record in records[1:]]
    return TableContents(frozenset([len(keys)]), keys)


def _records(text: io.TextIOWrapper, delimiter: str) -> Iterator[list[str]]:
    lines = (line.rstrip("\r\n") + "\n" for line in text if line.strip())
    yield from csv.reader(lines, delimiter=delimiter)


def _key_of_json(line: bytes, options: ReadOptions) -> str | None:
    try:
        value = json.loads(line.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return None
    if isinstance(value, str):
        return printable(value)
    if not isinstance(value, dict):
        return None
    name = options.key_column or next((key for key in LIST_KEYS if key in value), "")
    return _text(value.get(name))


def _decoded(line: bytes) -> str:
    return printable(line.rstrip(b"\r\n").decode("utf-8", "surrogateescape"))


def _text(value: Any) -> str | None:
    if value is None or value == "":
        return None
    return printable(value) if isinstance(value, str) else json.dumps(value)
