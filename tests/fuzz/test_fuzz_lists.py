"""Lists of arbitrary bytes: every line that is not blank gives a row, from any first row on."""

import csv
import io
import json
import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import DataError
from pipeline.read_options import ReadOptions
from pipeline.readers.lists import read_entries

LONG = os.environ.get("CHAOS") == "full"
usual = settings(
    max_examples=5_000 if LONG else 100, derandomize=not LONG, deadline=None, suppress_health_check=list(HealthCheck)
)
PIECES = st.sampled_from(
    [
        b"a.jpg",
        b"b/c.png",
        b",",
        b"\t",
        b'"',
        b"\n",
        b"\r\n",
        b"\r",
        b"\0",
        b"\xff",
        b"{",
        b"}",
        b'{"path": "a"}',
        b"[",
        b"path",
    ]
)
TEXT = st.lists(PIECES | st.binary(max_size=4), max_size=30).map(b"".join)


@usual
@given(TEXT, st.sampled_from(["txt", "csv", "tsv", "jsonl"]), st.sampled_from([b"", b"path,text\n", b"path\ttext\n"]))
def test_any_bytes_are_read_from_any_row(text: bytes, kind: str, header: bytes) -> None:
    data = header + text
    try:
        whole = list(read_entries(io.BytesIO(data), kind, ReadOptions()))
    except DataError:
        return
    for start in range(1, len(whole)):
        for offset in (0, whole[start - 1].next_offset):
            rest = list(read_entries(io.BytesIO(data), kind, ReadOptions(), start=start, offset=offset))
            assert [(row.name, row.next_offset) for row in rest] == [
                (row.name, row.next_offset) for row in whole[start:]
            ]
    if kind in ("txt", "jsonl"):
        lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        assert len(whole) == sum(1 for line in lines if line.strip())


PATHS = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1).filter(str.strip), min_size=1
)


@usual
@given(PATHS)
def test_what_python_writes_is_read(paths: list[str]) -> None:
    table, lines = io.StringIO(newline=""), "\n".join(json.dumps({"text": "x", "path": path}) for path in paths)
    csv.writer(table).writerows([["text", "path"], *(["x, y", path] for path in paths)])
    for kind, data in (("csv", table.getvalue()), ("jsonl", lines)):
        assert [row.location for row in read_entries(io.BytesIO(data.encode()), kind, ReadOptions())] == paths
