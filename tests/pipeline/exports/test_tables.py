"""CSV as Python's and pandas' readers and a spreadsheet's rules see it; JSON."""

import csv
import io
import json
from typing import Any

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from pipeline.exports.tables import write_csv, write_jsonl

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.text("=+-@'\"\r\n\t;, a", max_size=6)


def row(image_id: str, caption: str | None = "a dog", **more: Any) -> dict[str, Any]:
    return {
        "image_id": image_id,
        "shard": f"/in/{image_id}",
        "index": 0,
        "caption": caption,
        "error_code": None if caption is not None else "corrupt_image",
        "error_message": None if caption is not None else "=7 bytes",
    } | more


def written(*rows: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    assert write_csv(buffer, [list(rows[:1]), list(rows[1:])]) == len(rows)
    return buffer.getvalue()


def cells(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))


@given(TEXT, TEXT)
def test_texts_come_back_and_none_is_a_formula(image_id: str, caption: str) -> None:
    header, found = cells(written(row(image_id, caption)))
    assert header == ["path", "caption", "confidence", "error", "shard", "index"]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")) for cell in found)
    assert [cell.removeprefix("'") for cell in found[:2]] == [image_id, caption]


def test_a_spreadsheet_knows_the_encoding_and_the_ends_of_lines() -> None:
    data = written(row("a"), row("ü", 'two\nlines, "quoted"'))
    assert data.startswith(b"\xef\xbb\xbfpath,") and data.count(b"\r\n") == 3
    frame = pd.read_csv(io.BytesIO(data))
    assert list(frame["path"]) == ["a", "ü"] and frame["caption"][1] == 'two\nlines, "quoted"'


def test_errors_and_confidence_have_columns() -> None:
    frame = pd.read_csv(io.BytesIO(written(row("a", confidence=0.25), row("b", None))))
    assert frame["confidence"][0] == 0.25 and frame["error"][1] == "corrupt_image: =7 bytes"
    assert frame["caption"].isna().tolist() == [False, True]


def test_json_lines_hold_all_columns() -> None:
    buffer, rows = io.BytesIO(), [row("a"), row("ü\n", None)]
    assert write_jsonl(buffer, [rows, []]) == 2
    assert [json.loads(line) for line in buffer.getvalue().decode().splitlines()] == rows
