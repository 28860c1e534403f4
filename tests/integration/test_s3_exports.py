"""Exports from and to an object store, over HTTP: moto's server, or any store by `make test-s3`."""

from __future__ import annotations

import csv
import io
import tarfile
from pathlib import Path

import pytest
from conftest import Run, jpeg, tar_bytes
from exported import captioned
from s3_store import Bucket

FILES = {"in/a/0.jpg": jpeg(0), "in/1.jpg": jpeg(1)}
TARS = {"tars/s.tar": tar_bytes({"k0.jpg": jpeg(3), "k1.jpg": jpeg(4), "k1.cls": b"7"})}


@pytest.fixture
def captions(bucket: Bucket) -> dict[str, str]:
    """Files and a tar, and an output of both; returns the captions by image_id."""
    bucket.put(FILES | TARS)
    return captioned(f"{bucket.url}/out", f"{bucket.url}/in", f"{bucket.url}/tars")


def below(bucket: Bucket, folder: str) -> dict[str, bytes]:
    return {key.removeprefix(folder): data for key, data in bucket.contents().items() if key.startswith(folder)}


def members(tar: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        return {info.name: opened.extractfile(info).read() for info in opened}  # type: ignore[union-attr]


def test_tars_go_from_store_to_store(bucket: Bucket, captions: dict[str, str], shardtalk: Run) -> None:
    given = ("export", f"{bucket.url}/out", f"{bucket.url}/new/tars", "--to", "webdataset")
    code, said = shardtalk(*given)
    assert code == 0 and "4 images with captions in 2 tars" in said
    written = below(bucket, "new/tars/")
    assert members(written["s.tar"]) == {
        "k0.jpg": jpeg(3),
        "k0.txt": captions["k0"].encode(),
        "k1.jpg": jpeg(4),
        "k1.cls": b"7",
        "k1.txt": captions["k1"].encode(),
    }
    bucket.delete(["new/tars/s.tar"])
    code, said = shardtalk(*given)
    assert code == 0 and "2 images with captions in 1 tars" in said and "1 tars were there already" in said
    assert below(bucket, "new/tars/") == written


def test_a_table_and_texts_go_to_a_store(bucket: Bucket, captions: dict[str, str], shardtalk: Run) -> None:
    assert shardtalk("export", f"{bucket.url}/out", f"{bucket.url}/new/c.csv", "--to", "csv")[0] == 0
    rows = csv.DictReader(io.StringIO(below(bucket, "new/")["c.csv"].decode("utf-8-sig")))
    assert {row["path"]: row["caption"] for row in rows} == captions
    code, said = shardtalk("export", f"{bucket.url}/out", f"{bucket.url}/in/t", "--to", "txt")
    assert code == 2 and "lies inside the input" in said
    given = ("export", f"{bucket.url}/out", f"{bucket.url}/texts", "--to", "txt")
    assert shardtalk(*given)[0] == 0
    texts = {name: data.decode() for name, data in below(bucket, "texts/").items() if name.endswith(".txt")}
    assert texts == {
        "a/0.txt": captions["a/0.jpg"],
        "1.txt": captions["1.jpg"],
        "s.tar/k0.txt": captions["k0"],
        "s.tar/k1.txt": captions["k1"],
    }
    assert "4 were there already" in shardtalk(*given)[1]


def test_texts_beside_images_of_a_store(bucket: Bucket, tmp_path: Path, shardtalk: Run) -> None:
    bucket.put(FILES | {"in/1.txt": b"mine"})
    captions = captioned(tmp_path / "out", f"{bucket.url}/in")
    code, said = shardtalk("export", tmp_path / "out", f"{bucket.url}/in/", "--to", "txt")
    assert code == 0 and "1 files written" in said and "1 others exist" in said
    expected = {name.removeprefix("in/"): data for name, data in FILES.items()}
    assert below(bucket, "in/") == expected | {"1.txt": b"mine", "a/0.txt": captions["a/0.jpg"].encode()}


def test_an_image_that_was_replaced_is_named(bucket: Bucket, tmp_path: Path, shardtalk: Run) -> None:
    bucket.put(FILES)
    captioned(tmp_path / "out", f"{bucket.url}/in")
    bucket.put({"in/1.jpg": jpeg(7) + b"more"})
    code, said = shardtalk("export", tmp_path / "out", tmp_path / "h", "--to", "huggingface")
    assert code == 1 and "in/1.jpg has changed since it was captioned" in said
