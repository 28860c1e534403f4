"""Parquet files of images: which column, which name, which row."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import DataError
from pipeline.parquet import Table


def file_of(columns: dict[str, Any], **options: Any) -> io.BytesIO:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, **options)
    return buffer


def opened(buffer: io.BytesIO) -> Table:
    return Table(buffer, len(buffer.getvalue()))


STRUCTS = [{"bytes": b"%d" % i, "path": f"{i}.jpg" if i % 3 else None} for i in range(100)]


@pytest.mark.parametrize("group", [100, 40, 7, 1])
@pytest.mark.parametrize("start", [0, 1, 39, 40, 99, 100])
def test_rows_from_any_number_on(group: int, start: int) -> None:
    buffer = file_of({"label": list(range(100)), "image": STRUCTS}, row_group_size=group)
    rows = list(opened(buffer).rows(start))
    assert [row.image for row in rows] == [b"%d" % i for i in range(start, 100)]
    assert [row.name for row in rows] == [f"{i}.jpg" if i % 3 else f"{i:09}" for i in range(start, 100)]
    offsets = [row.next_offset for row in rows]
    assert offsets == sorted(offsets) and all(offset == len(buffer.getvalue()) for offset in offsets[-1:])


def test_names_are_those_of_the_rows() -> None:
    for columns in (
        {"image": STRUCTS},
        {"image": STRUCTS, "key": [f"k{i}" if i % 2 else None for i in range(100)]},
        {"image": [entry["bytes"] for entry in STRUCTS], "id": list(range(100))},
        {"image": [entry["bytes"] for entry in STRUCTS]},
    ):
        table = opened(file_of(columns, row_group_size=30))
        assert list(table.names()) == [row.name for row in table.rows()]


@pytest.mark.parametrize(
    ("columns", "image", "name"),
    [
        ({"jpg": [b"a"], "__key__": ["k"], "url": ["u"]}, b"a", "k"),
        ({"mask": [b"m"], "image": [b"a"], "url": ["u"]}, b"a", "u"),
        ({"data": pa.array([b"a"], pa.large_binary()), "id": [7]}, b"a", "7"),
        ({"picture": [{"bytes": b"a"}]}, b"a", "000000000"),
        ({"image": pa.array([None], pa.binary()), "key": [""]}, None, "000000000"),
    ],
)
def test_columns_are_found(columns: dict[str, Any], image: bytes | None, name: str) -> None:
    (row,) = opened(file_of(columns)).rows()
    assert (row.image, row.name) == (image, name)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [1], "text": ["a"]}, "no column of bytes"),
        ({"a": [b"1"], "b": [b"2"]}, "several columns of bytes: a, b"),
    ],
)
def test_a_file_without_images_says_so(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        opened(file_of(columns))
    assert raised.value.code == "no_image"


def test_damage_is_found_where_it_is() -> None:
    whole = file_of({"image": [bytes([i]) * 5000 for i in range(60)]}, row_group_size=10, compression="none").getvalue()
    for damaged in (b"PAR1", whole[:-9], whole[:1000] + whole[1100:], b""):
        with pytest.raises(DataError) as raised:
            list(Table(io.BytesIO(damaged), len(damaged)).rows())
        assert raised.value.code == "corrupt_shard"
    damaged = whole[:120_000] + bytes(40_000) + whole[160_000:]
    images = []
    with pytest.raises(DataError, match="cannot be read from row 2"):
        for row in Table(io.BytesIO(damaged), len(damaged)).rows():
            images.append(row.image)
    assert images == [bytes([i]) * 5000 for i in range(20)]


def test_datasets_writes_what_is_read_here(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(decode=False), "text": datasets.Value("string")})
    rows = {"image": [{"bytes": b"x", "path": "a.png"}, {"bytes": b"y", "path": None}], "text": ["s", "t"]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "d.parquet")
    table = opened(io.BytesIO((tmp_path / "d.parquet").read_bytes()))
    assert [(row.name, row.image) for row in table.rows()] == [("a.png", b"x"), ("000000001", b"y")]
