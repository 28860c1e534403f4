"""Differences between rows and an independent count of the input."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.read_options import ReadOptions
from pipeline.verification.census import RowKey, compare_table, compare_tar, differences
from pipeline.verification.table_census import TableContents, count_list, count_parquet
from pipeline.verification.tar_census import TarContents


def rows(*names: str) -> list[RowKey]:
    """Builds rows; names that begin with the tar's stand for damage."""
    return [RowKey(i, name, "corrupt_shard" if name.startswith("s.") else None) for i, name in enumerate(names)]


def test_whole_multisets_are_compared() -> None:
    assert list(differences(["a", "b"], ["a", "b"])) == []
    assert list(differences(["a", "b"], ["a"])) == ["1 image ('b') without a row"]
    assert list(differences(["a"], ["a", "a"])) == ["1 row ('a') not in the input"]
    assert list(differences(["a", "a"], ["a", "b"])) == ["1 image ('a') without a row", "1 row ('b') not in the input"]
    assert list(differences(["a", "b"], ["b", "a"])) == ["the rows are in another order than the images of the input"]
    assert list(differences(list("abcde"), [])) == ["5 images ('a', 'b', 'c' and 2 more) without a row"]


def test_a_whole_tar_has_exactly_its_ids() -> None:
    contents = TarContents(["a.jpg", "b.jpg"], ["a", "b"])
    assert list(compare_tar("s.tar", contents, rows("a", "b"))) == []
    assert list(compare_tar("s.tar", contents, rows("a", "x"))) == [
        "1 image ('b') without a row",
        "1 row ('x') not in the input",
    ]
    assert list(compare_tar("s.tar", contents, rows("s.tar"))) == ["2 images ('a', 'b') without a row"]


def test_a_damaged_tar_may_have_more_rows_and_not_fewer() -> None:
    contents = TarContents(["a.jpg", "b.left.jpg", "b.right.jpg"], is_whole=False)
    assert list(compare_tar("s.tar", contents, rows("a", "s.tar@512", "b.left", "b.right.jpg", "c"))) == []
    assert list(compare_tar("s.tar", contents, rows("a", "s.tar@512", "b", "c"))) == [
        "1 image ('b.right.jpg') without a row"
    ]
    assert list(compare_tar("s.tar", contents, rows("a", "b", "b.right"))) == []
    whole = TarContents(["a.jpg", "b.jpg"], ["a", "b"])
    assert list(compare_tar("s.tar", whole, rows("a.jpg", "s.tar@512"))) == ["1 image ('b.jpg') without a row"]


def test_an_image_of_the_name_of_damage_is_none() -> None:
    found = [RowKey(0, "s.tar@512", None)]
    assert list(compare_tar("s.tar", TarContents(["s.tar@512"], ["s.tar@512"]), found)) == []


def test_a_tar_that_was_cut_must_have_a_row_that_says_so() -> None:
    contents = TarContents(["a.jpg"], ["a"], is_cut=True)
    assert list(compare_tar("s.tar", contents, rows("a"))) == ["the tar is truncated, but no row reports it"]
    assert list(compare_tar("s.tar", contents, rows("a", "s.tar@1024"))) == []


def test_a_list_may_name_itself() -> None:
    contents = TableContents(frozenset([2]), ["a.jpg", "s.txt"])
    found = [RowKey(0, "a.jpg", None), RowKey(1, "s.txt", "unreadable")]
    assert list(compare_table("s.txt", contents, found)) == []
    assert list(compare_table("s.txt", contents, found[1:])) == ["0 rows for 2 images"]


def test_rows_of_a_table_are_counted_then_named() -> None:
    contents = TableContents(frozenset([2, 5]), ["a", None])
    assert list(compare_table("s.parquet", contents, rows("a", "b"))) == []
    assert list(compare_table("s.parquet", contents, rows("x", "b"))) == [
        "1 image ('a') without a row",
        "1 row ('x') not in the input",
    ]
    assert list(compare_table("s.parquet", contents, rows("a"))) == ["1 rows for 2 or 5 images"]
    assert list(compare_table("s.parquet", contents, rows(*"abcde"))) == []
    assert list(compare_table("s.parquet", contents, rows("a.0", "b"))) == []


@pytest.mark.parametrize(("code", "excused"), [("corrupt_shard", True), ("no_image", True), ("unreadable", False)])
def test_a_table_that_cannot_be_used_has_a_row_that_says_so(code: str, *, excused: bool) -> None:
    found = list(compare_table("s.parquet", TableContents(frozenset([9])), [RowKey(0, "s.parquet", code)]))
    assert found == ([] if excused else ["0 rows for 9 images"])


IMAGES = [[b"a", b"b"], [], None, [b"c"]]


@pytest.mark.parametrize(
    ("columns", "column", "counts"),
    [
        ({"image": pa.array([b"a", None])}, "", {2}),
        ({"images": pa.array(IMAGES), "id": [1, 2, 3, 4]}, "", {5}),
        ({"images": pa.array(IMAGES), "image": [b"x"] * 4}, "", {4, 5}),
        ({"images": pa.array(IMAGES), "image": [b"x"] * 4}, "image", {4}),
        ({"images": pa.array(IMAGES), "__key__": [b"x"] * 4}, "", {5}),
        ({"image": pa.array([[1, 2], [3]], pa.list_(pa.uint8()))}, "", {2}),
        ({"image": pa.array([[[1, 2]], [[3], [4]]], pa.list_(pa.list_(pa.uint8())))}, "image", set()),
        ({"image": [[{"jpg": b"x", "n": 1}] * 2, []]}, "image.jpg", {3}),
        ({"image": pa.array([[("k", b"x")] * 2, []], pa.map_(pa.string(), pa.binary()))}, "image.value", {3}),
        ({"image": ["a.jpg", "b.jpg", "c.jpg"], "tags": [["x", "y"], [], []]}, "", {3, 4}),
        ({"image": ["a.jpg", "b.jpg", "c.jpg"], "tags": [["x", "y"], [], []]}, "image", {3}),
    ],
)
def test_counts_of_a_parquet_file(columns: dict[str, object], column: str, counts: set[int], tmp_path: Path) -> None:
    pq.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=2)
    with (tmp_path / "t.parquet").open("rb") as file:
        assert count_parquet(file, ReadOptions(image_column=column)).counts == counts


@pytest.mark.parametrize(
    ("columns", "key", "keys"),
    [
        ({"id": [0, 7]}, "", ["0", "7"]),
        ({"id": ["x", None], "key": ["", "k"]}, "", [None, "k"]),
        ({"id": ["x", None], "key": ["", "k"]}, "id", ["x", None]),
        ({"id": [1.5, 2.5]}, "", []),
        ({"other": [1, 2]}, "", []),
    ],
)
def test_keys_of_a_parquet_file(columns: dict[str, object], key: str, keys: list[str], tmp_path: Path) -> None:
    pq.write_table(pa.table(columns | {"image": [b"a", b"b"]}), tmp_path / "t.parquet", row_group_size=1)
    with (tmp_path / "t.parquet").open("rb") as file:
        assert list(count_parquet(file, ReadOptions(key_column=key)).keys) == keys


@pytest.mark.parametrize("data", [b"", b"PAR1", b"no table at all" * 99])
def test_a_parquet_file_that_is_none(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(data)
    with (tmp_path / "t.parquet").open("rb") as file:
        assert count_parquet(file, ReadOptions()) == TableContents(frozenset())


@pytest.mark.parametrize(
    ("kind", "text", "counts", "keys"),
    [
        ("txt", b"\xef\xbb\xbfa.jpg\r\n\n  \nb\xff.jpg", {2}, ["a.jpg", "b\\xff.jpg"]),
        (
            "jsonl",
            b'"a.jpg"\n{"path":"b","id":3}\n{"path":"c"}\n[broken\n7',
            {5},
            ["a.jpg", "3", None, None, None],
        ),
        ("csv", b'path,id\na.jpg,1\n\n"b,c.jpg",\nd.jpg\n', {3}, ["1", None, None]),
        ("tsv", b"path\turl\na\tb\n", {1}, []),
        ("csv", b"a.jpg\nb.jpg\n", {2, 1}, []),
        ("csv", b"", {0}, []),
        ("csv", b'text,path\nx,"a.jpg\ny,b.jpg\n', set(), []),
        ("csv", b'text,path\n"x\ny",b.jpg\n', {1}, []),
        ("csv", b'path,id\n"' + b"x" * 200_000, set(), []),
    ],
)
def test_lists(kind: str, text: bytes, counts: set[int], keys: list[str], tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(text)
    with (tmp_path / "list").open("rb") as file:
        found = count_list(file, kind, ReadOptions())
    assert (set(found.counts), list(found.keys)) == (counts, keys)
