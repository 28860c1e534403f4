"""Parquet files of all kinds, undamaged and damaged, compared with pyarrow's own readers."""

import io
import os
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import DataError
from pipeline.parquet.reader import ParquetShard, Row
from pipeline.read_options import ReadOptions

LONG = os.environ.get("CHAOS") == "full"
usual = settings(
    max_examples=1_000 if LONG else 60, derandomize=not LONG, deadline=None, suppress_health_check=list(HealthCheck)
)

IMAGE = st.none() | st.binary(min_size=1, max_size=300)
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
KINDS: dict[str, pa.DataType] = {
    "binary": pa.binary(),
    "large": pa.large_binary(),
    "view": pa.binary_view(),
    "numbers": pa.list_(pa.uint8()),
    "struct": STRUCT,
    "list": pa.list_(pa.binary()),
    "structs": pa.large_list(STRUCT),
    "nested": pa.struct([("a", pa.struct([("image", pa.binary()), ("x", pa.int32())]))]),
}
KEYS = [pa.int64(), pa.string(), pa.binary(), pa.float32(), pa.timestamp("us"), pa.decimal128(9, 2), pa.bool_()]


@st.composite
def columns(draw: st.DrawFn) -> tuple[str, pa.Table]:
    """Generates a kind of column, and a table with images in it."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    rows = draw(st.integers(0, 30))
    images = st.lists(IMAGE, min_size=rows, max_size=rows)
    path = st.none() | st.text(st.characters(codec="utf-8"), max_size=5)
    structs = st.none() | st.fixed_dictionaries({"bytes": IMAGE, "path": path})
    values: dict[str, st.SearchStrategy[list[Any]]] = {
        "struct": st.lists(structs, min_size=rows, max_size=rows),
        "list": st.lists(st.none() | st.lists(IMAGE, max_size=4), min_size=rows, max_size=rows),
        "structs": st.lists(st.none() | st.lists(structs, max_size=4), min_size=rows, max_size=rows),
        "nested": st.lists(
            st.none()
            | st.fixed_dictionaries({"a": st.none() | st.fixed_dictionaries({"image": IMAGE, "x": st.just(1)})}),
            min_size=rows,
            max_size=rows,
        ),
    }
    found = draw(values.get(kind, images))
    if kind == "numbers":
        found = [value and list(value) for value in found]
    arrays = {"picture": pa.array(found, KINDS[kind])}
    if draw(st.booleans()):
        key = draw(st.sampled_from(KEYS))
        whole = pa.array(draw(st.lists(st.none() | st.integers(0, 1), min_size=rows, max_size=rows)), pa.int8())
        texts = {pa.string(): pa.string(), pa.binary(): pa.string()}
        arrays["id"] = whole.cast(texts.get(key, pa.int64() if pa.types.is_temporal(key) else key)).cast(key)
    if draw(st.booleans()):
        arrays["label"] = pa.array(range(rows), pa.int32())
    return kind, pa.table(arrays)


@st.composite
def files(draw: st.DrawFn) -> tuple[str, pa.Table, bytes]:
    """Generates a kind of column, a table, and its file."""
    kind, table = draw(columns())
    buffer = io.BytesIO()
    pq.write_table(
        table,
        buffer,
        row_group_size=draw(st.sampled_from([1, 3, 7, 100])),
        compression=draw(st.sampled_from(["none", "snappy", "zstd", "gzip"])),
        use_dictionary=draw(st.booleans()),
        data_page_size=draw(st.sampled_from([64, 500, 1 << 20])),
        data_page_version=draw(st.sampled_from(["1.0", "2.0"])),
        write_batch_size=draw(st.sampled_from([1, 1024])),
        write_page_index=draw(st.booleans()),
    )
    return kind, table, buffer.getvalue()


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Damages bytes: changes, removes or inserts some, or cuts the end."""
    broken = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(broken) - 1)))
        what = draw(st.sampled_from(["flip", "flip", "zero", "cut", "insert", "drop"]))
        if what == "flip" and broken:
            broken[at] ^= 1 << draw(st.integers(0, 7))
        elif what == "zero":
            broken[at : at + 20] = bytes(len(broken[at : at + 20]))
        elif what == "cut":
            del broken[at:]
        elif what == "insert":
            broken[at:at] = draw(st.binary(max_size=9))
        else:
            del broken[at : at + draw(st.integers(1, 9))]
    return bytes(broken)


def expected(kind: str, table: pa.Table) -> list[Any]:
    """Returns the images in order, and the paths of rows without bytes."""
    found: list[Any] = []
    for value in table["picture"].to_pylist():
        entries = value or [None] if kind in ("list", "structs") else [value]
        for entry in entries:
            if kind == "nested":
                found.append(entry and entry["a"] and entry["a"]["image"])
            elif kind in ("struct", "structs") and entry:
                found.append(entry["bytes"] if entry["bytes"] is not None else entry["path"] or None)
            else:
                found.append(bytes(entry) if kind == "numbers" and entry is not None else entry)
    return found


def opened(kind: str, data: bytes) -> ParquetShard:
    options = ReadOptions(image_column="picture.a.image" if kind == "nested" else "picture")
    return ParquetShard(io.BytesIO(data), len(data), options)


@usual
@given(files())
def test_what_pyarrow_reads_are_the_rows(file: tuple[str, pa.Table, bytes]) -> None:
    kind, written, data = file
    table = opened(kind, data)
    rows = list(table.rows(siblings=["label"]))
    assert [row.image for row in rows] == expected(kind, written)
    for start in range(0, len(rows) + 1, 5):
        assert list(table.rows(start, ["label"])) == rows[start:]
    ids = written["id"].to_pylist() if "id" in written.column_names and kind not in ("list", "structs") else []
    for row, key in zip(rows, ids, strict=False):
        if isinstance(key, int | str) and key != "":
            assert row.name == str(key)


def accounted(kind: str, data: bytes) -> list[Row] | DataError:
    """Reads the rows of a damaged file, or the error in their place."""
    try:
        table = opened(kind, data)
    except DataError as error:
        return error
    rows = list[Row]()
    try:
        rows.extend(table.rows())
    except DataError as error:
        assert error.code == "corrupt_shard"
    assert all(isinstance(row.image, bytes | str | DataError | None) for row in rows)
    return rows


def images_by_pyarrow(kind: str, data: bytes) -> list[list[Any]] | None:
    """Reads the images of each row group by pyarrow; None if it cannot open the file."""
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        groups = range(file.num_row_groups)
    except Exception:  # noqa: BLE001 - whatever it says of damage
        return None
    found = []
    for group in groups:
        try:
            found.append(expected(kind, file.read_row_group(group, columns=["picture"], use_threads=False)))
        except Exception:  # noqa: BLE001 - as above
            found.append([])
    return found


@usual
@given(st.data())
def test_around_damage_all_is_read_that_pyarrow_reads(data: st.DataObject) -> None:
    kind, _, whole = data.draw(files())
    broken = data.draw(damaged(whole))
    rows = accounted(kind, broken)
    by_pyarrow = images_by_pyarrow(kind, broken)
    ours = [] if isinstance(rows, DataError) else [row.image for row in rows]
    for group in by_pyarrow or []:
        for image in group:
            assert image is None or image in ours
