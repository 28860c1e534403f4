"""Real-world folders: no file in them ends or blocks the job, and none is ignored silently."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Run, codes, jpeg, pictures, rows_of, tar_of_pictures

ALL_ERRORS = ("--max_error_rate", 1)


def captioned(folder: Path, caption: Run, shardtalk: Run) -> tuple[dict[str, str | None], str]:
    """Captions and verifies a folder; returns the error code by image_id, and the messages."""
    code, said = caption(folder, *ALL_ERRORS)
    assert code == 0, said
    assert shardtalk("verify", folder.parent / "out", folder)[0] == 0
    return codes(folder.parent / "out"), said


def test_what_is_no_file_is_a_row(
    tmp_path: Path, caption: Run, shardtalk: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pictures(tmp_path / "in", 1)
    for name, target in (
        ("loop.jpg", "loop.jpg"),
        ("zero.jpg", "/dev/zero"),
        ("zero.tar", "/dev/zero"),
        ("x.png", "y"),
    ):
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "pipe.jpg")
    os.mkfifo(folder / "pipe.parquet")
    os.mkfifo(folder / "pipe")
    monkeypatch.chdir(folder)  # the names of sockets are short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.jpg")
        found, said = captioned(folder, caption, shardtalk)
    bad = ["loop.jpg", "zero.jpg", "zero.tar", "x.png", "pipe.jpg", "pipe.parquet", "socket.jpg"]
    assert found == dict.fromkeys(bad, "unreadable") | {"0.jpg": None}
    assert "no extension 1" in said
    messages = {row["image_id"]: row["error_message"] for row in rows_of(tmp_path / "out")}
    assert messages["zero.jpg"] == "a device, not a file" and messages["pipe.jpg"] == "a pipe, not a file"
    assert "symbolic links" in messages["loop.jpg"]


@pytest.fixture
def removed(tmp_path: Path) -> Iterator[Path]:
    """A temporary folder that `rm` removes, since pytest cannot remove deep ones."""
    yield tmp_path / "in"
    subprocess.run(["rm", "-rf", tmp_path / "in"], check=True)


def test_folders_may_be_deep_and_names_long(tmp_path: Path, removed: Path, caption: Run, shardtalk: Run) -> None:
    pictures(removed, 1)
    top = os.open(tmp_path / "in", os.O_RDONLY)
    for name, depth in (("d", 1000), ("l" * 250, 20)):
        at = os.dup(top)
        for _ in range(depth):
            os.mkdir(name, dir_fd=at)
            at, above = os.open(name, os.O_RDONLY, dir_fd=at), at
            os.close(above)
        file = os.open("deep.jpg", os.O_WRONLY | os.O_CREAT, dir_fd=at)
        os.write(file, jpeg(depth))
        os.close(file)
        os.close(at)
    os.close(top)
    found, _ = captioned(tmp_path / "in", caption, shardtalk)
    below = {name: code for name, code in found.items() if name.startswith("l")}
    assert found == {"0.jpg": None, "d/" * 1000 + "deep.jpg": None} | below
    assert list(below.values()) == ["unreadable"]  # the system opens no path of 5,000 bytes


def test_folders_that_link_to_each_other_end(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    for i in range(9):
        folder = pictures(tmp_path / "in" / str(i), 1)
        for j in range(9):
            (folder / f"to{j}").symlink_to(f"../{j}")
    found, said = captioned(tmp_path / "in", caption, shardtalk)
    assert {f"{i}/0.jpg" for i in range(9)} | {f"{i}/to{j}/0.jpg" for i in range(9) for j in range(9) if i != j} <= {
        *found
    }
    assert len(found) < 1000
    assert "links to folders that are listed already" in said


def test_tables_and_tars_beside_images_are_read(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    folder = pictures(tmp_path / "in", 1)
    tar_of_pictures(folder / "s.tar", 1)
    (folder / "data").mkdir()
    pq.write_table(pa.table({"image": [jpeg(5)], "id": ["row"]}), folder / "data" / "train.parquet")
    pq.write_table(pa.table({"file_name": ["0.jpg"], "text": ["x"]}), folder / "captions.parquet")
    pq.write_table(pa.table({"file_name": ["0.jpg"], "thumbnail": [jpeg(6)]}), folder / "metadata.parquet")
    (folder / "damaged.parquet").write_bytes(b"PAR1")
    found, said = captioned(folder, caption, shardtalk)
    assert found == {"0.jpg": None, "k0": None, "row": None, "damaged.parquet": "corrupt_shard"}
    assert "Parquet without a column of images, beside images 1" in said
    assert "metadata.parquet beside images (name it to have it read) 1" in said


@pytest.mark.parametrize("name", ["a.tar.gz", "b.TGZ", "c.tar.zst"])
def test_a_folder_of_compressed_tars_says_so(name: str, tmp_path: Path, caption: Run) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(b"x")
    for given in (tmp_path / "in", f"{tmp_path}/in/*"):
        code, said = caption(given)
        assert code == 2 and said.count("\n") == 1
        assert "holds no images; it has compressed tars (unpack them to have them read) 1" in said


@pytest.mark.parametrize(
    ("name", "word"),
    [("a.zip", "unpack"), ("a.pdf", "pdftoppm"), ("a.MP4", "ffmpeg"), ("a.h5", "Parquet"), ("a.json", "jsonl")],
)
def test_a_file_that_is_not_read_says_what_to_do(name: str, word: str, tmp_path: Path, caption: Run) -> None:
    (tmp_path / name).write_bytes(b"x")
    code, said = caption(tmp_path / name)
    assert code == 2 and said.count("\n") == 1 and word in said


def test_images_that_pillow_does_not_know_are_rows(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    folder = pictures(tmp_path / "in", 1)
    kinds = ["heic", "HEIF", "jxl", "avifs", "qoi", "psd", "apng", "mpo", "j2k", "dng", "CR2", "svg"]
    for kind in kinds:
        (folder / f"a.{kind}").write_bytes(b"whatever it is")
    found, _ = captioned(folder, caption, shardtalk)
    assert found.keys() == {"0.jpg"} | {f"a.{kind}" for kind in kinds}


def test_two_names_are_two_images(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    names = [
        b"a\xff.jpg",
        rb"a\xff.jpg",
        rb"a\\xff.jpg",
        b"a\\\xff.jpg",
        b"a\xff\xff.jpg",
        "aÿ.jpg".encode(),
        b"b.jpg ",
        b"b.jpg.",
    ]
    for i, name in enumerate(names):
        (folder / os.fsdecode(name)).write_bytes(jpeg(i))
    found, _ = captioned(folder, caption, shardtalk)
    assert len(found) == len(names) and set(found.values()) == {None}
    assert "a\\xff.jpg" in found
