"""Reads lists of images: a path or URL in each line of a text file, or in a column of CSV, TSV or JSON lines.

Lines are read one by one; a line longer than `MAX_LINE_BYTES` becomes an error row.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from pipeline.errors import DataError
from pipeline.file_types import recognize
from pipeline.filenames import EXTENSIONS
from pipeline.read_options import ReadOptions
from pipeline.schema import ErrorCode
from pipeline.shards import extension_of

MAX_LINE_BYTES = 1 << 20
"""Maximum length of a line in bytes; a longer one is an error row."""
PATH_COLUMNS = (
    "path",
    "file_name",
    "filename",
    "file_path",
    "filepath",
    "file",
    "image",
    "image_path",
    "url",
    "image_url",
    "img",
)
"""Columns that may hold the paths; the first existing one is used."""
KEY_COLUMNS = ("__key__", "key", "image_id", "id")
"""Columns that may hold the image_id; the first existing one is used, or else the path."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_HEAD_BYTES = 64 << 10
"""Number of bytes that are checked to be text."""
_MOST_ZEROS = 4
"""If more than one byte in this many is zero, the text counts as UTF-16: every second byte of ASCII is zero there."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of a list, or the error in its place."""

    name: str
    """image_id of the row, as the operating system encodes names: not necessarily UTF-8."""
    location: str | DataError
    """Path or URL, or the error of the line."""
    next_offset: int
    """Byte offset of the next line."""
    siblings: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Line:
    start: int
    stop: int
    text: str | DataError


def read_entries(
    file: BinaryIO, kind: str, options: ReadOptions, *, start: int = 0, offset: int = 0, siblings: Collection[str] = ()
) -> Iterator[Entry]:
    """Yields the entries of a list from index `start` on.

    Args:
        file: the list, positioned at its beginning.
        kind: extension of the list: csv, tsv, jsonl, ndjson, or any other for plain text.
        options: names of the columns.
        start: index of the first entry.
        offset: byte offset of entry `start`; 0 if unknown, in which case the entries before it are counted.
        siblings: columns kept beside the path.

    Raises DataError for a file that is not a list, or if the column of paths cannot be determined.
    """
    head = file.read(_HEAD_BYTES)
    if problem := _not_a_list(head):
        raise DataError(ErrorCode.CORRUPT_SHARD, problem)
    first = len(BYTE_ORDER_MARK) if head.startswith(BYTE_ORDER_MARK) else 0
    if kind in ("csv", "tsv"):
        found = _of_table(file, (first, offset), "\t" if kind == "tsv" else ",", options, siblings)
    else:
        lines = _lines(file, offset or first)
        as_json = kind in ("jsonl", "ndjson")
        found = (_of_json(line, options, siblings) if as_json else _of_text(line) for line in lines)
    number = start if offset else 0
    for entry in found:
        if number >= start:
            yield entry
        number += 1


def looks_like_json_lines(head: bytes) -> bool:
    """Returns whether the first bytes of a list look like JSON lines."""
    return head.removeprefix(BYTE_ORDER_MARK).lstrip()[:1] in (b"{", b'"')


def _not_a_list(head: bytes) -> str:
    """Returns why a file is not a list of lines, with advice, by its first bytes; empty if it is one."""
    if head.startswith(_UTF_16) or (head.count(0) * _MOST_ZEROS > len(head) and b"\n" in head):
        return "the list is UTF-16; save it as UTF-8"
    if 0 in head and (what := recognize(head)):
        return f"not a list but {what}"
    if b"\n" in head:
        return ""
    if 0 in head:
        return "the list is separated by zero bytes; convert them to line feeds with `tr '\\0' '\\n'`"
    return "the lines end in carriage returns alone; save the list with line feeds" if b"\r" in head.strip() else ""


def _lines(file: BinaryIO, offset: int) -> Iterator[_Line]:
    """Yields the lines that are not blank."""
    file.seek(offset)
    while data := file.readline(MAX_LINE_BYTES):
        start, offset = offset, offset + len(data)
        if len(data) == MAX_LINE_BYTES and not data.endswith(b"\n"):
            while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                offset += len(rest)
            offset += len(rest)
            yield _Line(
                start, offset, DataError(ErrorCode.UNREADABLE, f"the line at byte {start} is longer than 1 MiB")
            )
        elif data.strip():
            yield _Line(start, offset, data.rstrip(b"\r\n").decode("utf-8", "surrogateescape"))


def _damaged(line: _Line, error: DataError) -> Entry:
    return Entry(f"@{line.start}", error, line.stop)


def _of_text(line: _Line) -> Entry:
    if isinstance(line.text, DataError):
        return _damaged(line, line.text)
    return Entry(line.text, line.text, line.stop)


def _of_json(line: _Line, options: ReadOptions, siblings: Collection[str]) -> Entry:
    if isinstance(line.text, DataError):
        return _damaged(line, line.text)
    try:
        value = json.loads(line.text)
    except (ValueError, RecursionError) as error:
        problem = f"the line at byte {line.start} is not JSON: {type(error).__name__}: {error}"
        return _damaged(line, DataError(ErrorCode.UNREADABLE, problem))
    if isinstance(value, str):
        return Entry(value, value, line.stop)
    if not isinstance(value, Mapping):
        problem = f"the line at byte {line.start} is neither an object nor a string"
        return _damaged(line, DataError(ErrorCode.NO_IMAGE, problem))
    try:
        path = _path_column(list(value), options)
    except DataError as error:
        return _damaged(line, error)
    return _entry(value, path, line, options, siblings)


def _entry(values: Mapping[str, Any], path: str, line: _Line, options: ReadOptions, siblings: Collection[str]) -> Entry:
    location = values.get(path)
    if not isinstance(location, str) or not location:
        problem = f"the line at byte {line.start} has no path in {path}"
        return _damaged(line, DataError(ErrorCode.NO_IMAGE, problem))
    key = values.get(options.key_column or next((name for name in KEY_COLUMNS if name in values), path))
    name = location if key is None or key == "" else _as_text(key)
    found = {name: _as_text(values[name]) for name in siblings if values.get(name) is not None and name != path}
    texts = {name: text.encode("utf-8", "surrogatepass") for name, text in found.items()}
    return Entry(name, location, line.stop, texts)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _path_column(names: Sequence[str], options: ReadOptions) -> str:
    """Returns the name of the column of paths. Raises DataError if it cannot be determined."""
    named = options.path_column
    if named and names.count(named) == 1:
        return named
    known = {name.strip().lower(): name for name in names}
    found = None if named else next((known[name] for name in PATH_COLUMNS if name in known), None)
    if found is None or names.count(found) > 1:
        problem = f"path_column is {named}, but" if named else "the column of paths is unknown;"
        raise DataError(
            ErrorCode.NO_IMAGE, f"{problem} the list has {', '.join(names)}; --path_column takes one of them"
        )
    return found


def _of_table(
    file: BinaryIO, starts: tuple[int, int], delimiter: str, options: ReadOptions, siblings: Collection[str]
) -> Iterator[Entry]:
    """Yields the records of CSV or TSV. The first record names the columns; a single unnamed column holds paths.

    In countries with decimal commas, spreadsheets separate the columns of CSV by semicolons.

    Args:
        starts: byte offset of the first line, and of the first record to yield; 0 yields all.
    """
    first, offset = starts
    header = next(_records(file, first, delimiter), None)
    if header and delimiter == "," and isinstance(header[1], list) and len(header[1]) == 1 and ";" in header[1][0]:
        delimiter, header = ";", next(_records(file, first, ";"))
    if header is None:
        return
    line, names = header
    if isinstance(names, DataError):
        raise names
    has_header = len(names) > 1 or bool(options.path_column) or not _is_location(names[0])
    path = _path_column(names, options) if has_header else PATH_COLUMNS[0]
    columns = names if has_header else [path]
    records = _records(file, offset or (line.stop if has_header else first), delimiter, columns.index(path))
    for at, values in records:
        if isinstance(values, DataError):
            yield _damaged(at, values)
        else:
            yield _entry(dict(zip(columns, values, strict=False)), path, at, options, siblings)


def _is_location(text: str) -> bool:
    return "://" in text or "/" in text or extension_of(text) in EXTENSIONS


def _records(
    file: BinaryIO, offset: int, delimiter: str, path: int | None = None
) -> Iterator[tuple[_Line, list[str] | DataError]]:
    """Yields the records of CSV with the lines that they occupy.

    A record spans several lines if a quote is closed on a later line. If that would make a path of several lines, or
    a field that is too long, only its first line is an error, and reading continues with the next line.

    Args:
        path: index of the column of paths; None for the header.
    """
    while True:
        taken = list[_Line]()
        reader = csv.reader(_texts(_lines(file, offset), taken), delimiter=delimiter)
        try:
            for values in reader:
                if path is not None and path < len(values) and "\n" in values[path]:
                    raise csv.Error("a path of several lines: a quote is not closed")
                line = _Line(taken[0].start, taken[-1].stop, "")
                taken.clear()
                yield line, values
            return
        except csv.Error as error:
            first = taken[0]
            problem = DataError(ErrorCode.UNREADABLE, f"the line at byte {first.start} is damaged: {error}")
        except DataError as error:
            first, problem = taken[-1], error
        offset = first.stop
        yield first, problem


def _texts(lines: Iterator[_Line], taken: list[_Line]) -> Iterator[str]:
    for line in lines:
        taken.append(line)
        if isinstance(line.text, DataError):
            raise line.text
        yield line.text + "\n"
