"""The second listing of an input."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3_store import Bucket

from pipeline.verification.folder_census import list_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "in"
    for name in ("a.jpg", "b/c.HEIC", "b/d.txt", ".hidden.jpg", "b/.x/e.png", "s.tar", "t.tar.gz", "none"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(b"x")
    return top


def found(folder: Path, *inputs: object) -> list[str]:
    return sorted(os.path.relpath(path, folder) for path in list_files(map(str, inputs or [folder])))


def test_files_are_input_by_their_names(folder: Path) -> None:
    assert found(folder) == ["a.jpg", "b/.x/e.png", "b/c.HEIC", "s.tar"]
    assert found(folder, folder / "b" / "d.txt", folder / "none", folder / "gone", "-") == ["b/d.txt", "none"]


def test_patterns_and_braces(folder: Path) -> None:
    assert found(folder, folder / "*", f"{folder}/{{a,x}}.jpg") == ["a.jpg", "a.jpg", "s.tar"]
    assert found(folder, folder / "**" / "*") == ["a.jpg", "b/c.HEIC", "s.tar"]


def test_links_to_folders_are_followed_once(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other" / "deep").mkdir(parents=True)
    (tmp_path / "other" / "deep" / "f.jpg").write_bytes(b"x")
    (tmp_path / "other" / "deep" / "up").symlink_to(tmp_path)
    (folder / "link").symlink_to(tmp_path / "other")
    (folder / "again").symlink_to("b")
    assert set(found(folder)) >= {"a.jpg", "b/c.HEIC", "s.tar", "link/deep/f.jpg"}
    assert len(found(folder)) == len(set(found(folder)))


def test_tables_beside_images_are_input_if_they_hold_bytes(folder: Path) -> None:
    for name, column in [("with", [b"x"]), ("without", [1]), ("metadata", [b"x"])]:
        pq.write_table(pa.table({"image": column}), folder / f"{name}.parquet")
    (folder / "broken.parquet").write_bytes(b"x")
    os.mkfifo(folder / "pipe.parquet")
    (folder / "zero.parquet").symlink_to("/dev/zero")
    assert found(folder) == ["a.jpg", "b/.x/e.png", "b/c.HEIC", "s.tar", "with.parquet"]
    (folder / "only").mkdir()
    pq.write_table(pa.table({"image": [1]}), folder / "only" / "t.parquet")
    assert found(folder, folder / "only") == ["only/t.parquet"]


def test_a_folder_on_s3_is_listed_by_names(bucket: Bucket) -> None:
    below = ("a.jpg", "b/c.PNG", "s.tar", ".hidden.jpg", "notes.txt", "t.parquet")
    bucket.put(dict.fromkeys((*(f"in/{name}" for name in below), "inner.jpg"), b"x"))
    expected = [f"{bucket.url}/in/{name}" for name in below[:3]]
    for given in ("in", "in/"):
        assert sorted(list_files([f"{bucket.url}/{given}"])) == expected
    assert sorted(list_files([bucket.url])) == [*expected, f"{bucket.url}/inner.jpg"]


def test_patterns_on_s3_are_not_listed(bucket: Bucket) -> None:
    bucket.put({"a.jpg": b"x", "*.jpg/b.jpg": b"x"})
    assert list(list_files([f"{bucket.url}/*.jpg"])) == []
