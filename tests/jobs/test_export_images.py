"""Tars and image folders that `shardtalk export` writes, as webdataset, tarfile and `datasets` read them."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from conftest import Run, encoded, jpeg, picture, pictures, tar_bytes, tar_of_pictures
from exported import captioned
from PIL import Image

from pipeline.filenames import printable


def samples(*tars: Path) -> list[dict[str, Any]]:
    """Reads tars by webdataset; one after the other, undecoded."""
    urls = [str(path) for path in sorted(tars)]
    return list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar if info.isfile()}  # type: ignore[union-attr]


def add_link(tar: tarfile.TarFile, name: str, target: str, kind: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    tar.addfile(info)


def test_a_tar_is_copied_with_its_captions(tmp_path: Path, shardtalk: Run) -> None:
    failed = {"bad.jpg": b"", "bad.cls": b"8"}
    contents = {
        "d/0001.jpg": jpeg(0),
        "d/0001.cls": b"7",
        "2.left.jpg": jpeg(1),
        "2.json": b"{}",
        "2.right.jpg": jpeg(2),
        "ü.b.png": encoded(picture(3), "PNG"),
    }
    tar = tmp_path / "in" / "s" / "0.tar"
    tar.parent.mkdir(parents=True)
    tar.write_bytes(tar_bytes(failed | contents))
    tar_of_pictures(tmp_path / "in" / "1.tar", 2)
    captions = captioned(tmp_path / "out", tmp_path / "in")
    code, said = shardtalk("export", tmp_path / "out", tmp_path / "w", "--to", "webdataset")
    assert code == 0 and "in 2 tars written" in said
    found = members(tmp_path / "w" / "s" / "0.tar")
    assert {name: data for name, data in found.items() if name in contents | failed} == contents
    assert {name: data.decode() for name, data in found.items() if name not in contents} == {
        "d/0001.txt": captions["d/0001"],
        "2.left.txt": captions["2.left"],
        "2.right.txt": captions["2.right"],
        "ü.txt": captions["ü"],
    }
    by_key = {sample["__key__"]: sample for sample in samples(tmp_path / "w" / "s" / "0.tar")}
    assert by_key["2"]["left.txt"].decode() == captions["2.left"] and by_key["2"]["right.jpg"] == jpeg(2)
    assert len(by_key) == 3 and len(samples(tmp_path / "w" / "1.tar")) == 2


def test_links_become_files_and_damage_is_left_out(tmp_path: Path, shardtalk: Run) -> None:
    path = tmp_path / "in" / "s.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for i in (0, 1):
            (tmp_path / f"{i}.jpg").write_bytes(jpeg(i))
            tar.add(tmp_path / f"{i}.jpg", f"{i}.jpg")
        add_link(tar, "3.jpg", "1.jpg", tarfile.SYMTYPE)
        add_link(tar, "3.cls", "gone", tarfile.SYMTYPE)
        add_link(tar, "4.jpg", "gone.jpg", tarfile.LNKTYPE)
    data = bytearray(path.read_bytes())
    data[0:8] = b"damaged!"  # the header of the first member
    path.write_bytes(bytes(data))
    captions = captioned(tmp_path / "out", path)
    assert set(captions) == {"1", "3"}
    code, said = shardtalk("export", tmp_path / "out", tmp_path / "w", "--to", "webdataset")
    assert code == 0 and "2 images with captions in 1 tars" in said and "left out: 2 errors" in said
    assert members(tmp_path / "w" / "s.tar") == {
        "1.jpg": jpeg(1),
        "1.txt": captions["1"].encode(),
        "3.jpg": jpeg(1),
        "3.txt": captions["3"].encode(),
    }


def test_a_caption_never_replaces_a_member(tmp_path: Path, shardtalk: Run) -> None:
    path = tmp_path / "in" / "s.tar"
    path.parent.mkdir()
    path.write_bytes(tar_bytes({"0.jpg": jpeg(0), "0.TXT": b"theirs"}))
    captions = captioned(tmp_path / "out", path)
    given = ("export", tmp_path / "out", "--to", "webdataset")
    code, said = shardtalk(*given, tmp_path / "w")
    assert code == 2 and "give another --extension" in said and not (tmp_path / "w" / "s.tar").exists()
    assert shardtalk(*given, tmp_path / "x", "--extension", "caption.txt")[0] == 0
    found = members(tmp_path / "x" / "s.tar")
    assert found["0.TXT"] == b"theirs" and found["0.caption.txt"].decode() == captions["0"]


def test_files_tables_and_lists_become_tars(tmp_path: Path, shardtalk: Run) -> None:
    photos = pictures(tmp_path / "in" / "photos", 4)
    (photos / "1.jpg").write_bytes(encoded(picture(1), "PNG"))
    table = tmp_path / "tables" / "t.parquet"
    table.parent.mkdir()
    pq.write_table(pa.table({"key": ["a", "a", "c"], "image": [jpeg(5), None, jpeg(6)]}), table, row_group_size=2)
    listed = tmp_path / "tables" / "l.txt"
    listed.write_text(f"{photos}/2.jpg\n{photos}/gone.jpg\n{photos}/3.jpg\n")
    captions = captioned(tmp_path / "out", photos, table, listed, part_rows=4)
    code, said = shardtalk("export", tmp_path / "out", tmp_path / "w", "--to", "webdataset")
    assert code == 0 and "8 images with captions" in said and "left out: 2 errors" in said
    found = samples(*(tmp_path / "w").rglob("*.tar"))
    records = [json.loads(sample["json"]) for sample in found]
    assert all(sample["txt"].decode() == record["caption"] for sample, record in zip(found, records, strict=True))
    images = {
        (record["shard"], record["index"]): next(sample[kind] for kind in ("jpg", "png") if kind in sample)
        for sample, record in zip(found, records, strict=True)
    }
    expected = {(str(path), 0): path.read_bytes() for path in photos.iterdir()}
    assert images == expected | {(str(table), 0): jpeg(5), (str(table), 2): jpeg(6)} | {
        (str(listed), 0): jpeg(2),
        (str(listed), 2): jpeg(3),
    }
    assert sum("png" in sample for sample in found) == 1 and set(captions.values()) >= {r["caption"] for r in records}


def test_tars_of_one_name_stay_apart(tmp_path: Path, shardtalk: Run) -> None:
    for i, name in enumerate(("a.tar", "a.TAR", "b/a.tar")):
        tar_of_pictures(tmp_path / "in" / name, 1, first=i)
    captions = captioned(tmp_path / "out", tmp_path / "in")
    assert shardtalk("export", tmp_path / "out", tmp_path / "w", "--to", "webdataset")[0] == 0
    found = samples(*(tmp_path / "w").rglob("*.tar"))
    assert {sample["__key__"]: sample["txt"].decode() for sample in found} == captions and len(found) == 3


def test_the_same_command_writes_the_rest(tmp_path: Path, shardtalk: Run) -> None:
    for i in range(3):
        tar_of_pictures(tmp_path / "in" / f"{i}.tar", 4, first=4 * i)
    captioned(tmp_path / "out", tmp_path / "in")
    given = ("export", tmp_path / "out", "--to", "webdataset")
    assert shardtalk(*given, tmp_path / "whole")[0] == 0
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    hidden = (tmp_path / "in" / "1.tar").rename(tmp_path / "elsewhere")
    code, said = shardtalk(*given, tmp_path / "w")
    assert code == 1 and "8 images with captions in 2 tars" in said and "failed: 1 could not be written" in said
    assert not json.loads((tmp_path / "w" / "_export.json").read_text())["finished"]
    hidden.rename(tmp_path / "in" / "1.tar")
    code, said = shardtalk(*given, tmp_path / "w")
    assert code == 0 and "4 images with captions in 1 tars" in said and "2 tars were there already" in said
    assert {path.name: path.read_bytes() for path in (tmp_path / "w").iterdir()} == whole


@pytest.mark.parametrize("form", ["webdataset", "huggingface"])
def test_missing_images_are_left_out_if_allowed(form: str, tmp_path: Path, shardtalk: Run) -> None:
    photos = pictures(tmp_path / "in", 4)
    captioned(tmp_path / "out", photos, part_rows=2)
    (photos / "0.jpg").write_bytes(jpeg(9))
    (photos / "3.jpg").unlink()
    given = ("export", tmp_path / "out", "--to", form)
    code, said = shardtalk(*given, tmp_path / "w")
    assert code == 1 and "failed: 2 could not be written for missing images" in said and "has changed" in said
    assert "0 images with captions" in said and not [
        *(tmp_path / "w").rglob("*.tar"),
        *(tmp_path / "w").rglob("*.parquet"),
    ]
    code, said = shardtalk(*given, tmp_path / "x", "--allow_missing")
    assert code == 0 and "2 images with captions" in said and "2 captions left out whose image is gone" in said


def test_datasets_reads_the_folder(tmp_path: Path, shardtalk: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    photos = pictures(tmp_path / "in", 3)
    (photos / "bad.jpg").write_bytes(b"")
    tar = tar_of_pictures(tmp_path / "shards" / "test-0.tar", 3, first=5)
    captions = captioned(tmp_path / "out", photos, tar, part_rows=2)
    code, said = shardtalk("export", tmp_path / "out", tmp_path / "h", "--to", "huggingface")
    assert code == 0 and "6 images with captions" in said and "left out: 1 errors" in said
    import datasets

    found = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "h"), cache_dir=str(tmp_path / "cache"))
    assert list(found) == ["train"]
    rows = list(found["train"])
    assert {row["image_id"]: row["caption"] for row in rows} == captions and len(rows) == 6
    for row in rows:
        seed = int(row["image_id"].removeprefix("k").removesuffix(".jpg"))
        assert isinstance(row["image"], Image.Image) and row["image"].size == (33 + seed % 5, 47)
    assert {row["shard"] for row in rows} == {printable(str(path)) for path in [tar, *photos.glob("[0-9].jpg")]}
