"""Parquet files of images: columns, image_ids and rows."""

import base64
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import DataError
from pipeline.parquet.footer_check import FooterChecker
from pipeline.parquet.reader import ParquetShard
from pipeline.read_options import ReadOptions


def file_of(columns: dict[str, Any], **options: Any) -> io.BytesIO:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, **options)
    return buffer


def opened(buffer: io.BytesIO) -> ParquetShard:
    return ParquetShard(buffer, len(buffer.getvalue()))


MAP_OF_TEXT = pa.map_(pa.string(), pa.string())
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


def test_names_are_those_of_the_column_the_path_or_the_number() -> None:
    images, paths = [entry["bytes"] for entry in STRUCTS], [entry["path"] for entry in STRUCTS]
    numbers = [f"{number:09}" for number in range(100)]
    keys = [f"k{i}" if i % 2 else None for i in range(100)]
    for columns, names in (
        ({"image": STRUCTS}, [path or number for path, number in zip(paths, numbers, strict=True)]),
        ({"image": images, "key": keys}, [key or number for key, number in zip(keys, numbers, strict=True)]),
        ({"image": images, "id": list(range(100))}, [str(number) for number in range(100)]),
        ({"image": images}, numbers),
    ):
        table = opened(file_of(columns, row_group_size=30))
        assert [row.name for row in table.rows()] == names


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
        ({"label": [1], "text": ["a"]}, "no column of images; --image_column .* text"),
        ({"label": [1]}, r"no column of images among label \(int64\)"),
        ({}, "the file has no columns"),
        ({"a": pa.array([[("k", "v")]], MAP_OF_TEXT)}, r"--image_column .* a\.key, a\.value"),
        ({"a": [b"1"], "b": [b"2"]}, "several columns could be the images; --image_column takes one of a, b"),
    ],
)
def test_a_file_without_images_says_so(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        opened(file_of(columns))
    assert raised.value.code == "no_image"


def test_damage_is_found_where_it_is() -> None:
    whole = file_of({"image": [bytes([i]) * 5000 for i in range(60)]}, row_group_size=10, compression="none").getvalue()
    for damaged in (b"PAR1", whole[:-9], b""):
        with pytest.raises(DataError) as raised:
            list(ParquetShard(io.BytesIO(damaged), len(damaged)).rows())
        assert raised.value.code == "corrupt_shard"
    damaged = whole[:120_000] + bytes(40_000) + whole[160_000:]
    rows = list(ParquetShard(io.BytesIO(damaged), len(damaged)).rows())
    assert [row.name for row in rows] == [f"{i:09}" for i in range(60)]
    lost = [i for i, row in enumerate(rows) if isinstance(row.image, DataError)]
    assert lost == list(range(lost[0], 40)) and 20 <= lost[0] < 32  # from the damage to the end of its row group
    assert all(row.image == bytes([i]) * 5000 for i, row in enumerate(rows) if i not in lost)


def test_damage_to_another_column_costs_no_image() -> None:
    columns = {"image": [bytes([i]) * 9 for i in range(50)], "key": [f"key-{i}" * 40 for i in range(50)]}
    buffer = file_of(columns, compression="none", use_dictionary=False)
    start = buffer.getvalue().index(b"key-0")
    damaged = buffer.getvalue()[: start - 4] + b"\xff" * 3000 + buffer.getvalue()[start + 2996 :]
    assert [row.image for row in ParquetShard(io.BytesIO(damaged), len(damaged)).rows()] == columns["image"]


IMAGE = b"\xff\xd8\xff an image, long enough to be no hash of anything, or so it must look like"
FORMS: dict[str, Any] = {
    "binary": pa.array([IMAGE]),
    "large": pa.array([IMAGE], pa.large_binary()),
    "view": pa.array([IMAGE], pa.binary_view()),
    "fixed": pa.array([IMAGE], pa.binary(len(IMAGE))),
    "dictionary": pa.array([IMAGE]).dictionary_encode(),
    "numbers": pa.array([list(IMAGE)], pa.list_(pa.uint8())),
    "signed": pa.array([[byte - 256 if byte > 127 else byte for byte in IMAGE]], pa.list_(pa.int8())),
    "fixed numbers": pa.array([list(IMAGE)], pa.list_(pa.uint8(), len(IMAGE))),
    "wide numbers": pa.array([list(IMAGE)], pa.list_(pa.int64())),
    "struct": pa.array([{"bytes": IMAGE, "path": "a.jpg"}]),
    "bytes alone": pa.array([{"bytes": IMAGE}]),
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_of_bytes_are_read(form: str) -> None:
    (row,) = opened(file_of({"image": FORMS[form]})).rows()
    assert row.image == IMAGE


@pytest.mark.parametrize("form", [form for form in FORMS if form != "wide numbers"])
def test_the_only_column_of_bytes_needs_no_name(form: str) -> None:
    columns = {"data": FORMS[form], "count": [1], "sha256": pa.array([b"x" * 32], pa.binary(32)), "text": ["t"]}
    (row,) = opened(file_of(columns)).rows()
    assert row.image == IMAGE


@pytest.mark.parametrize(
    ("text", "image"),
    [
        (base64.b64encode(IMAGE).decode(), IMAGE),
        (base64.urlsafe_b64encode(IMAGE).decode().rstrip("="), IMAGE),
        (base64.encodebytes(IMAGE).decode(), IMAGE),
        (f"data:image/jpeg;base64,{base64.b64encode(IMAGE).decode()}", IMAGE),
        ("data:image/jpeg;base64,é", "a data: URL whose base64 is damaged"),
        ("./" * 2500, "a text of 5,000 characters: neither base64 nor a path"),
        ("photos/a.jpg", "photos/a.jpg"),
        ("photos/cats", "photos/cats"),
        ("https://host/a.jpg", "https://host/a.jpg"),
        ("", None),
    ],
)
def test_text_is_base64_or_says_where_an_image_lies(text: str, image: bytes | str | None) -> None:
    (row,) = opened(file_of({"image": [text]})).rows()
    assert (row.image.message if isinstance(row.image, DataError) else row.image) == image


@pytest.mark.parametrize("text", [base64.b64encode(IMAGE), b"data:image/jpeg;base64," + base64.b64encode(IMAGE)])
def test_base64_may_be_kept_as_bytes(text: bytes) -> None:
    for column in ([text], [{"bytes": text, "path": "a.jpg"}]):
        (row,) = opened(file_of({"image": column})).rows()
        assert row.image == IMAGE
    for other in (text[:-10] + b"\xff", b"/9j/ text!", b"data:"):
        (row,) = opened(file_of({"image": [other]})).rows()
        assert row.image == other


def test_each_image_of_a_list_is_a_row() -> None:
    images = [[b"a", b"b"], [], None, [b"c", None]]
    numbers = pa.array([row and [one and list(one) for one in row] for row in images], pa.list_(pa.list_(pa.uint8())))
    structs = [row and [{"bytes": one, "path": None} for one in row] for row in images]
    views = [row and list(zip("xy", row, strict=False)) for row in images]
    maps = pa.array(views, pa.map_(pa.string(), pa.binary()))
    for entries in (images, numbers, structs, maps):
        table = opened(file_of({"images": entries, "id": [5, 6, 7, 8]}, row_group_size=2))
        rows = list(table.rows())
        assert [row.name for row in rows] == ["5.0", "5.1", "6", "7", "8.0", "8.1"]
        assert [row.image for row in rows] == [b"a", b"b", None, None, b"c", None]
        for start in range(7):
            assert list(table.rows(start)) == rows[start:]


def test_columns_are_named() -> None:
    buffer = file_of({"a": [{"b": {"c": b"1"}}], "d": [b"2"], "e": [{"name": "n"}], "id": [3]})
    for column, key, image, name in (("a.b.c", "", b"1", "3"), ("d", "e.name", b"2", "n")):
        options = ReadOptions(image_column=column, key_column=key)
        table = ParquetShard(buffer, len(buffer.getvalue()), options)
        assert [(row.image, row.name) for row in table.rows()] == [(image, name)]
    inner = [("x", {"c": b"1", "name": "n"}), ("y", {"c": b"2", "name": "n"})]
    buffer = file_of({"m": pa.array([inner], pa.map_(pa.string(), pa.struct({"c": pa.binary(), "name": pa.string()})))})
    for column in ("m", "m.value", "m.value.c"):  # the only bytes in it
        table = ParquetShard(buffer, len(buffer.getvalue()), ReadOptions(image_column=column))
        assert [row.image for row in table.rows()] == [b"1", b"2"]


def test_a_column_that_is_not_there_is_refused_with_those_that_are() -> None:
    buffer = file_of({"a": [{"b": {"c": b"1"}}], "d": [b"2"], "id": [3]})
    for wrong in (ReadOptions(image_column="x"), ReadOptions(image_column="d", key_column="x")):
        with pytest.raises(DataError, match=r"no such column among a, a.b, a.b.c, d"):
            ParquetShard(buffer, len(buffer.getvalue()), wrong)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (pa.array([0, 7]), ["0", "7"]),
        (pa.array([b"text", b"\xff\x00"]), ["text", "ff00"]),
        (pa.array([1.5, None]), ["1.5", "000000001"]),
        (pa.array([0, 1], pa.timestamp("ns")), ["1970-01-01 00:00:00.000000000", "1970-01-01 00:00:00.000000001"]),
        (pa.array([2**60, -(2**60)], pa.timestamp("ms")), None),
    ],
)
def test_names_are_what_the_column_holds(values: pa.Array, names: list[str] | None) -> None:
    table = opened(file_of({"image": [b"a", b"b"], "id": values}))
    found = [row.name for row in table.rows()]
    assert len(found) == 2
    assert names is None or found == names


def test_datasets_writes_what_is_read_here(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(decode=False), "text": datasets.Value("string")})
    rows = {"image": [{"bytes": b"x", "path": "a.png"}, {"bytes": b"y", "path": None}], "text": ["s", "t"]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "d.parquet")
    table = opened(io.BytesIO((tmp_path / "d.parquet").read_bytes()))
    assert [(row.name, row.image) for row in table.rows()] == [("a.png", b"x"), ("000000001", b"y")]


def test_no_flipped_bit_of_a_footer_ends_the_process() -> None:
    file = io.BytesIO()
    pq.write_table(pa.table({"image": [b"abc" * 9, None]}), file)
    whole = file.getvalue()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    refused = 0
    for bit in range(8 * footer, 8 * len(whole)):
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << bit % 8
        try:
            list(ParquetShard(io.BytesIO(broken), len(broken)).rows())
        except DataError as error:
            refused += "the footer's description of column 0 in row group 0 is damaged" in error.message
    assert refused


def test_a_column_that_pyarrow_cannot_describe_costs_no_image_of_another() -> None:
    whole = file_of({"image": [b"abc" * 9, None], "text": ["a", "b"]}).getvalue()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    name = whole.index(b"text", footer)  # behind its type
    checker, unsound = FooterChecker(), 0
    for bit in range(8 * (name - 6), 8 * name):
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << bit % 8
        unsound += not checker.is_sound(bytes(broken[footer:-8]), 1)
        try:
            expected = pq.ParquetFile(io.BytesIO(broken)).read(columns=["image"])["image"].to_pylist()
        except (OSError, pa.ArrowException):
            continue
        assert [row.image for row in ParquetShard(io.BytesIO(broken), len(broken)).rows()] == expected
    assert unsound


def test_a_row_group_that_pyarrow_cannot_describe_costs_no_other() -> None:
    whole = file_of({"image": [b"abc" * 9, b"def" * 9, b"ghi" * 9]}, row_group_size=1).getvalue()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    checker, compared = FooterChecker(), 0
    for byte in range(footer, len(whole) - 8):
        broken = bytearray(whole)
        broken[byte] ^= 1 << 5
        if checker.is_sound(bytes(broken[footer:-8]), 0):
            continue
        expected = list[bytes | None]()
        for group in range(3):
            try:
                table = pq.ParquetFile(io.BytesIO(broken)).read_row_group(group, columns=["image"])
                expected += table["image"].to_pylist()
            except (OSError, pa.ArrowException):
                expected.append(None)
        if any(expected):
            rows = ParquetShard(io.BytesIO(broken), len(broken)).rows()
            assert [None if isinstance(row.image, DataError) else row.image for row in rows] == expected
            compared += 1
    assert compared
