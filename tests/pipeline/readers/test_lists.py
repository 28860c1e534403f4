"""Lists of paths and URLs: rows, image_ids and errors."""

import io
import json

import pytest

from pipeline.errors import DataError
from pipeline.read_options import ReadOptions
from pipeline.readers.lists import MAX_LINE_BYTES, Entry, read_entries


def found(text: bytes, kind: str = "txt", **options: str) -> list[Entry]:
    return list(read_entries(io.BytesIO(text), kind, ReadOptions(**options), siblings=["text"]))


def locations(text: bytes, kind: str = "txt", **options: str) -> list[str | None]:
    """Returns the location of each line, or None."""
    return [None if isinstance(e.location, DataError) else e.location for e in found(text, kind, **options)]


LISTS = {
    "text": (b"a.jpg\n\nb c.jpg\r\nhttps://h/d\xff.jpg", "txt", ["a.jpg", "b c.jpg", "https://h/d\udcff.jpg"]),
    "one line": (b"a.jpg\r", "txt", ["a.jpg"]),
    "zero byte": (b"a.jpg\nb\0.jpg\n", "txt", ["a.jpg", "b\0.jpg"]),
    "PAR1, a folder": (b"PAR1/a.jpg\n", "txt", ["PAR1/a.jpg"]),
    "marked": (b"\xef\xbb\xbfa.jpg\n", "txt", ["a.jpg"]),
    "csv": (b'path,text\na.jpg,"x, ""y""\nz"\n"b,c.jpg",\n', "csv", ["a.jpg", "b,c.jpg"]),
    "tsv": (b"text\tURL\nx\thttp://h/a\n", "tsv", ["http://h/a"]),
    "no header": (b"a/b.jpg\nc/d.jpg\n", "csv", ["a/b.jpg", "c/d.jpg"]),
    "semicolons": (b'id;path\n1,5;"a;b.jpg"\n2;c.jpg\n', "csv", ["a;b.jpg", "c.jpg"]),
    "semicolons, a name of two lines": (b'"id\n;";path\n1;a.jpg\n', "csv", ["a.jpg"]),
    "a semicolon in quotes": (b'"a;b.jpg"\nc.jpg\n', "csv", ["a;b.jpg", "c.jpg"]),
    "spaced header": (b"id, path \n1,a.jpg\n", "csv", ["a.jpg"]),
    "json": (b'{"file_name": "a.jpg", "text": "x"}\n"b.jpg"\n', "jsonl", ["a.jpg", "b.jpg"]),
    "json damage": (b'{"path"\n[1]\n{"path": 3}\n' + b"[" * 99_999 + b'\n{"path": "a"}', "jsonl", [None] * 4 + ["a"]),
    "half a pair": (b'{"path": "\\ud83d.jpg"}', "jsonl", ["\ud83d.jpg"]),
    "open quote": (b'path,text\n"a.jpg,x\nb.jpg,"y"\nc.jpg,z\n', "csv", [None, "b.jpg", "c.jpg"]),
    "missing": (b"text,path\nx\ny,\nz,a.jpg\n", "csv", [None, None, "a.jpg"]),
    "long": (b"x" * (3 * MAX_LINE_BYTES) + b"\na.jpg\n", "txt", [None, "a.jpg"]),
    "empty": (b"", "csv", []),
}


@pytest.mark.parametrize("name", LISTS)
def test_each_line_is_a_row(name: str) -> None:
    text, kind, expected = LISTS[name]
    assert locations(text, kind) == expected


@pytest.mark.parametrize("name", LISTS)
def test_a_list_is_read_from_any_row(name: str) -> None:
    text, kind, _ = LISTS[name]
    whole = found(text, kind)
    for start in range(1, len(whole)):
        for offset in (0, whole[start - 1].next_offset):
            rest = read_entries(io.BytesIO(text), kind, ReadOptions(), start=start, offset=offset, siblings=["text"])
            assert [repr(entry) for entry in rest] == [repr(entry) for entry in whole[start:]]


def test_other_columns_are_names_and_siblings() -> None:
    table = b"id,file_name,text\n7,a.jpg,x\n,b.jpg,\n"
    lines = "\n".join(
        json.dumps({"id": i, "file_name": f, "text": t}) for i, f, t in [(7, "a.jpg", "x"), (0, "b", [1])]
    )
    assert [(e.name, e.siblings) for e in found(table, "csv")] == [("7", {"text": b"x"}), ("b.jpg", {"text": b""})]
    assert [(e.name, e.siblings["text"]) for e in found(lines.encode(), "jsonl")] == [("7", b"x"), ("0", b"[1]")]
    assert [e.name for e in found(table, "csv", key_column="text")] == ["x", "b.jpg"]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_column_that_is_not_known_is_asked_for(kind: str) -> None:
    text = b"where,what\na.jpg,x\n" if kind == "csv" else b'{"where": "a.jpg", "what": "x"}\n'
    assert locations(text, kind, path_column="where") == ["a.jpg"]
    for options in ({}, {"path_column": "who"}):
        with pytest.raises(DataError, match="where, what; --path_column takes one"):
            entry = found(text, kind, **options)[0]
            raise entry.location if isinstance(entry.location, DataError) else AssertionError(entry)


def test_utf_16_is_said_so() -> None:
    with pytest.raises(DataError, match="UTF-16"):
        found("a.jpg".encode("utf-16"))


@pytest.mark.parametrize("kind", ["txt", "csv", "tsv", "jsonl"])
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("path\na.jpg\n".encode("utf-16-le"), "UTF-16"),
        ("path\na.jpg\n".encode("utf-16-be"), "UTF-16"),
        ("path\na.jpg\n".encode("utf-32"), "UTF-16"),
        (b"path\ra.jpg\rb.jpg", "carriage returns"),
        (b"a.jpg\0b.jpg\0", "zero bytes"),
        (bytes(99), "zero bytes"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\n", "not a list but an image"),
        (b"PK\3\4\0\n", "not a list but a zip archive"),
    ],
)
def test_what_are_no_lines_says_so(text: bytes, problem: str, kind: str) -> None:
    with pytest.raises(DataError, match=problem):
        found(text, kind)
