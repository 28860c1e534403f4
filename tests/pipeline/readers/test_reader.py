import json
import os
import socket
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import jpeg, pictures, tar_bytes, tar_of_pictures

import pipeline.readers.reader
from pipeline.inputs.listing import list_inputs
from pipeline.read_options import ReadOptions
from pipeline.readers.reader import read
from pipeline.schema import ENCODED
from pipeline.shards import Shard, Span


def spans(*paths: Path) -> list[Span]:
    return [Span(shard) for shard in list_inputs(map(str, paths)).shards]


def rows(work: list[Span]) -> list[dict[str, object]]:
    return [row for table in read(work, batch_size=3) for row in table.drop_columns("read_s").to_pylist()]


def test_tables_are_bounded_by_rows_across_shards(tmp_path: Path) -> None:
    work = spans(pictures(tmp_path / "in", 2), tar_of_pictures(tmp_path / "s.tar", 5))
    tables = list(read(work, batch_size=3))
    assert [len(table) for table in tables] == [3, 3, 1]
    assert all(table.schema == ENCODED for table in tables)


def test_tables_are_bounded_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.readers.reader, "BLOCK_BYTES", 2 * len(jpeg(0)))
    tables = list(read(spans(pictures(tmp_path, 7)), batch_size=100))
    assert len(tables) > 2 and sum(map(len, tables)) == 7


def test_what_lies_beside_images_counts_among_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, text in (("with", "x" * 9000), ("without", "")):
        pictures(tmp_path / folder, 4)
        for i in range(4):
            (tmp_path / folder / f"{i}.txt").write_text(text)
    monkeypatch.setattr(pipeline.readers.reader, "BLOCK_BYTES", 8 * len(jpeg(0)))
    lengths = {
        folder: [len(table) for table in read(spans(tmp_path / folder), batch_size=9, options=ReadOptions(("txt",)))]
        for folder in ("with", "without")
    }
    assert lengths == {"with": [1, 1, 1, 1], "without": [4]}


def test_an_image_is_a_shard_of_one_row_that_ends_with_the_file(tmp_path: Path) -> None:
    found = rows(spans(pictures(tmp_path, 2)))
    assert [(row["image_id"], row["index"], row["next_offset"], row["last"]) for row in found] == [
        (f"{i}.jpg", 0, len(jpeg(i)), True) for i in range(2)
    ]


def test_rows_share_the_time_that_their_table_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = spans(pictures(tmp_path, 3))
    clock = SimpleNamespace(perf_counter=iter([0.0, 5.0, 10.0, 12.0]).__next__)
    monkeypatch.setattr(pipeline.readers.reader, "time", clock)
    assert [table["read_s"].to_pylist() for table in read(work, batch_size=2)] == [[2.5, 2.5], [2.0]]


def test_what_lies_beside_an_image_comes_with_it_on_request(tmp_path: Path) -> None:
    said = {
        "a.jpg": jpeg(0),
        "a.txt": b"a dog\xff",
        "a.json": b'{"n": [1]}',
        "b.jpg": jpeg(1),
        "b.json": b"{",
        "c.jpg": b"",
    }
    (tmp_path / "s.tar").write_bytes(tar_bytes(said))
    for name, data in said.items():
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    table = pa.table({"image": [jpeg(0), jpeg(1), jpeg(2)], "txt": ["a dog\ufffd", None, None]})
    pq.write_table(table.append_column("json", [[{"n": [1]}, None, None]]), tmp_path / "s.parquet")
    for given in ("s.tar", "in", "s.parquet"):
        work = spans(tmp_path / given)
        found = [
            row for read_ in read(work, batch_size=2, options=ReadOptions(("txt", "json"))) for row in read_.to_pylist()
        ]
        first, *others = [json.loads(str(row["siblings"] or "null")) for row in found]
        assert first == {"txt": "a dog\ufffd", "json": {"n": [1]}}
        assert others == ([None, None] if given == "s.parquet" else [{"json": "{"}, None])
        assert [row["siblings"] for row in rows(work)] == [None] * 3


def test_rows_know_where_the_next_begins(tmp_path: Path) -> None:
    tar = tar_of_pictures(tmp_path / "s.tar", 4)
    found = rows(spans(tar))
    assert [(row["image_id"], row["index"], row["last"]) for row in found] == [
        ("k0", 0, False),
        ("k1", 1, False),
        ("k2", 2, False),
        ("k3", 3, True),
    ]
    assert [row["image"] for row in found] == [jpeg(i) for i in range(4)]
    for row, following in pairwise(found):
        assert tar.read_bytes()[row["next_offset"] :].startswith(f"{following['image_id']}.jpg".encode())


@pytest.mark.parametrize("start", range(4))
def test_a_tar_can_be_read_from_any_row(start: int, tmp_path: Path) -> None:
    members = [
        ("a.jpg", jpeg(0)),
        ("a.txt", b"x"),
        ("b.txt", b""),
        ("a.jpg", jpeg(1)),
        ("c.jpg", b""),
        ("d.jpg", jpeg(2)),
    ]
    tar = tmp_path / "s.tar"
    tar.write_bytes(tar_bytes(members))
    (span,) = spans(tar)
    whole = rows([span])
    assert [(row["image_id"], row["index"]) for row in whole] == [("a", 0), ("a.jpg", 1), ("c", 2), ("d", 3)]
    offset = whole[start - 1]["next_offset"] if start else 0
    assert rows([Span(span.shard, start, offset)]) == whole[start:]
    for stop in range(start, 4):
        assert rows([Span(span.shard, start, offset, stop)]) == whole[start:stop]


def test_each_image_of_a_sample_is_a_row(tmp_path: Path) -> None:
    members = {"a.json": b"{}", "a.seg.png": b"1", "a.png": b"2", "a.jpg": b"3", "a.txt": b"all", "a.seg.txt": b"one"}
    (tmp_path / "s.tar").write_bytes(tar_bytes(members))
    (table,) = read(spans(tmp_path / "s.tar"), batch_size=9, options=ReadOptions(("txt",)))
    found = [(row["image_id"], row["image"], json.loads(row["siblings"])["txt"]) for row in table.to_pylist()]
    assert found == [("a.seg", b"1", "one"), ("a.png", b"2", "all"), ("a.jpg", b"3", "all")]


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (("left.jpg",), ["0", "1"]),
        (("left.jpg", "depth.raw"), ["0.left", "0.depth", "1"]),
        (("jpg",), ["0.left", "0.right", "1.left", "1.right"]),
        (("1.left.jpg",), ["1"]),
    ],
)
def test_image_members_are_named(named: tuple[str, ...], expected: list[str], tmp_path: Path) -> None:
    members = dict.fromkeys(["0.left.jpg", "0.right.jpg", "0.depth.raw", "1.left.jpg", "1.right.jpg"], b"x")
    (tmp_path / "s.tar").write_bytes(tar_bytes(members))
    options = ReadOptions(image_members=named)
    (table,) = read(spans(tmp_path / "s.tar"), batch_size=9, options=options)
    assert table["image_id"].to_pylist() == expected


def test_an_image_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(tar_bytes({"a.jpg": b"12345", "b.jpg": b"1234"}))
    (table,) = read(spans(tmp_path / "s.tar"), batch_size=9, options=ReadOptions(max_image_bytes=4))
    assert table["error_code"].to_pylist() == ["too_large", None]


def test_members_that_are_no_images_are_counted(tmp_path: Path) -> None:
    names = [".DS_Store", "._a.jpg", "a.jpg", "a.txt", "b.txt", "__MACOSX/c.jpg", "README", "d.jpg", "e.json"]
    (tmp_path / "s.tar").write_bytes(tar_bytes(dict.fromkeys(names, b"x")))
    (span,) = spans(tmp_path / "s.tar")
    found = [json.loads(row["ignored"]) for row in rows([span])]
    assert found == [{"hidden": 3, ".txt": 1, "no extension": 1}, {".json": 1}]
    (tmp_path / "t.tar").write_bytes(tar_bytes({"a.txt": b"x"}))
    (row,) = rows(spans(tmp_path / "t.tar"))
    assert (row["error_code"], row["ignored"]) == ("empty_shard", '{".txt": 1}')


def test_what_is_wrong_becomes_a_row(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").write_bytes(jpeg(0))
    (tmp_path / "gone.tar").write_bytes(tar_bytes({"a.jpg": jpeg(0)}))
    work = spans(tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    reason = "No such file or directory"
    columns = ("image_id", "error_code", "error_message", "last")
    assert [tuple(row[name] for name in columns) for row in rows(work)] == [
        ("gone.jpg", "unreadable", reason, True),
        ("gone.tar", "unreadable", reason, True),
    ]


def siblings_of(folder: Path, **files: bytes) -> object:
    """Reads an image with these files beside it; returns its column `siblings`, parsed as strict JSON."""
    (folder / "a.jpg").write_bytes(jpeg(0))
    for extension, data in files.items():
        (folder / f"a.{extension}").write_bytes(data)
    options = ReadOptions(("txt", "json"))
    (table,) = read(spans(folder / "a.jpg"), batch_size=9, options=options)
    (found,) = table["siblings"].to_pylist()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    assert found is None or found.encode()
    return json.loads(found, parse_constant=refuse) if found else None


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"n": 1}', {"n": 1}),
        (b'{"n": NaN}', '{"n": NaN}'),
        (b"[-Infinity]", "[-Infinity]"),
        (b"[1e999]", "[1e999]"),
        (b"[" * 100_000, "[" * 100_000),
        (b"1" * 10_000, "1" * 10_000),
        (b'{"caption": "\\ud83d"}', {"caption": "\ud83d"}),
        (b'"\\\\\\udc80"', "\\\udc80"),
        (b'{"caption": "\\ud83d\\ude00"}', {"caption": "\U0001f600"}),
        (b'"\xff\xed\xa0\xbd"', "\ufffd" * 4),
        (b'{"a": "\\u0000"}', {"a": "\0"}),
        (b"{", "{"),
        (b"", ""),
    ],
    ids=lambda value: str(value)[:20] if isinstance(value, bytes) else "",
)
def test_a_json_beside_an_image_is_json_or_text(data: bytes, expected: object, tmp_path: Path) -> None:
    assert siblings_of(tmp_path, json=data) == {"json": expected}


def test_what_beside_an_image_is_no_file_is_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.txt")
    (tmp_path / "a.json").mkdir()
    assert siblings_of(tmp_path) is None


def test_a_socket_or_device_beside_an_image_is_left_out(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "a.txt"))
        (tmp_path / "a.json").symlink_to("/dev/zero")
        assert siblings_of(tmp_path) is None


def test_a_huge_file_beside_an_image_is_left_out(tmp_path: Path) -> None:
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(100 << 30)
    assert siblings_of(tmp_path, json=b"1") == {"json": 1}
    (table,) = read(spans(tmp_path / "a.jpg"), batch_size=1, options=ReadOptions(("txt",)))
    assert table["ignored"].to_pylist() == ['{"siblings of more than 16 MiB": 1}']


def test_a_file_beside_an_image_may_be_as_large_as_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.readers.reader, "MAX_SIBLING_BYTES", 3)
    assert siblings_of(tmp_path, txt=b"abc", json=b"1234") == {"txt": "abc"}


def test_a_huge_value_beside_an_image_in_a_table_is_left_out(tmp_path: Path) -> None:
    texts = ["x" * (16 << 20), "x" * ((16 << 20) + 1), "y"]
    table = pa.table({"image": [jpeg(i) for i in range(3)], "text": texts, "other": texts[::-1]})
    pq.write_table(table, tmp_path / "s.parquet")
    (found,) = read(spans(tmp_path / "s.parquet"), batch_size=9, options=ReadOptions(("text", "other")))
    kept = [json.loads(siblings or "{}").keys() for siblings in found["siblings"].to_pylist()]
    assert kept == [{"text", "other"}, set(), {"text", "other"}]
    assert found["ignored"].to_pylist() == [None, '{"siblings of more than 16 MiB": 2}', None]


def test_an_image_of_too_many_bytes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(100 << 30)
    (row,) = rows(spans(tmp_path))
    assert (row["error_code"], row["image"], row["last"]) == ("too_large", None, True)
    assert "max_image_bytes" in str(row["error_message"])


def test_an_image_that_was_listed_with_too_many_bytes_is_not_opened(tmp_path: Path) -> None:
    (row,) = rows([Span(Shard(str(tmp_path / "missing.jpg"), "a", (512 << 20) + 1, 0))])
    assert (row["image_id"], row["error_code"]) == ("a", "too_large")


def test_an_image_that_grew_beyond_the_limit_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"1234")
    work = spans(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"12345")
    (found,) = read(work, batch_size=1, options=ReadOptions(max_image_bytes=4))
    assert (found["error_code"].to_pylist(), found["image"].to_pylist()) == (["too_large"], [None])


def test_a_shard_that_cannot_be_read_counts_the_bytes_that_are_left(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    work = [Span(Shard(f"{missing}.tar", "", 5000, 0)), Span(Shard(f"{missing}.parquet", "", 5000, 0), 7, 1000)]
    found = rows([*work, Span(Shard(f"{missing}.jpg", "a", 5000, 0))])
    assert [row["error_code"] for row in found] == ["unreadable"] * 3
    assert [row["num_bytes"] for row in found] == [5000, 4000, 0]


def test_the_limit_of_bytes_can_be_set(tmp_path: Path) -> None:
    pictures(tmp_path / "in", 1)
    tar = tar_of_pictures(tmp_path / "s.tar", 1)
    pq.write_table(pa.table({"image": [jpeg(0)]}), tmp_path / "s.parquet")
    size = len(jpeg(0))
    for limit, code in ((size - 1, "too_large"), (size, None)):
        work = spans(tmp_path / "in", tar, tmp_path / "s.parquet")
        (table,) = read(work, batch_size=9, options=ReadOptions(max_image_bytes=limit))
        assert table["error_code"].to_pylist() == [code] * 3


def test_a_file_that_grows_or_shrinks_after_it_was_listed_is_read_as_it_is(tmp_path: Path) -> None:
    pictures(tmp_path, 2)
    work = spans(tmp_path)
    (tmp_path / "0.jpg").write_bytes(jpeg(0) + bytes(5000))
    (tmp_path / "1.jpg").write_bytes(jpeg(1)[:100])
    assert [row["image"] for row in rows(work)] == [jpeg(0) + bytes(5000), jpeg(1)[:100]]


def test_a_file_that_grows_beyond_the_limit_is_too_large(tmp_path: Path) -> None:
    pictures(tmp_path, 1)
    work = spans(tmp_path)
    (tmp_path / "0.jpg").write_bytes(bytes(50_000))
    (table,) = read(work, batch_size=9, options=ReadOptions(max_image_bytes=40_000))
    assert table["error_code"].to_pylist() == ["too_large"]


def test_a_file_that_became_a_pipe_is_unreadable(tmp_path: Path) -> None:
    pictures(tmp_path, 1)
    work = spans(tmp_path)
    (tmp_path / "0.jpg").unlink()
    os.mkfifo(tmp_path / "0.jpg")
    assert [row["error_code"] for row in rows(work)] == ["unreadable"]
