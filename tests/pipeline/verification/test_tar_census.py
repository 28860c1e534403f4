"""The images that `tarfile` finds in a tar, with the ids of docs/inputs.md."""

import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from conftest import tar_bytes

from pipeline.tar.sample_rows import image_matcher
from pipeline.verification.tar_census import TarContents, count_images, key_family


def contents(data: bytes, *members: str) -> TarContents:
    return count_images(io.BytesIO(data), len(data), image_matcher(members))


def tar_of(*names: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 700
            tar.addfile(info, io.BytesIO(bytes([7]) * 700))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["a.jpg", "a.txt", "b.PNG"], ["a", "b"]),
        (["a.txt", "a.left.jpg", "a.right.jpg"], ["a.left", "a.right"]),
        (["22.05.jpg", "22.06.jpg"], ["22.05", "22.06"]),
        (["a.jpg", "a.png"], ["a.jpg", "a.png"]),
        (["a.jpg", "a.jpg", "a.jpg", "a.jpg"], ["a", "a.jpg", "a.jpg#2", "a.jpg#3"]),
        (["a.left.jpg", "b.jpg", "a.left.png"], ["a", "b", "a.left"]),
        (["d/.x.jpg", "d/x.jpg", ".jpg"], ["d/.x", "d/x", ".jpg"]),
        (["a.jpg", "._a.jpg", "__MACOSX/a.jpg", ".DS_Store", "a.png"], ["a.jpg", "a.png"]),
        (["a.jpg.txt", "b", "c.txt"], []),
        (["a.jpg ", "b.PNG.", "c.jpg.txt "], ["a", "b"]),
        (["b.left.jpg", "a", "b.right.jpg"], ["b", "b.right"]),
        (["a\udcff.jpg"], ["a\\xff"]),
    ],
)
def test_ids(names: list[str], ids: list[str]) -> None:
    found = contents(tar_of(*names))
    assert found.ids == ids and found.is_whole and not found.is_cut
    assert len(found.images) == len(ids)


def test_names_in_an_incremental_backup_are_gnu_tars(tmp_path: Path) -> None:
    (tmp_path / "in" / "d.jpg").mkdir(parents=True)
    (tmp_path / "in" / "d.jpg" / "a.jpg").write_bytes(b"A")
    command = ["tar", "-G", "--label=holiday.jpg", "-C", tmp_path / "in", "-cf", tmp_path / "s.tar", "."]
    subprocess.run(command, check=True)
    found = contents((tmp_path / "s.tar").read_bytes())
    assert found.ids == ["./d.jpg/a"] and found.is_whole


def test_two_tars_in_one_file_share_no_sample() -> None:
    found = contents(tar_of("a.jpg") + tar_of("a.png"))
    assert found.ids == ["a", "a.png"] and found.is_whole


@pytest.mark.parametrize("said", [{"comment": "of all"}, {"path": "z.txt"}, {"GNU.sparse.name": "z", "size": "9"}])
def test_a_global_header_is_no_damage_and_names_nothing(said: dict[str, str]) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", pax_headers=said) as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    found = contents(buffer.getvalue())
    assert found.ids == ["a"] and found.is_whole


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_links_are_images(kind: bytes) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, of_kind in [("a.jpg", tarfile.REGTYPE), ("b.jpg", kind), ("c.jpg", tarfile.DIRTYPE)]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = of_kind, "a.jpg"
            tar.addfile(info)
    assert contents(buffer.getvalue()).images == ["a.jpg", "b.jpg"]


def test_members_that_are_named() -> None:
    found = contents(tar_of("a.left.jpg", "a.depth.raw", "b.left.jpg"), "depth.raw", "left.jpg")
    assert found.ids == ["a.left", "a.depth", "b"]
    assert contents(tar_of("left", "right"), "left").ids == ["left"]


def test_damage_and_what_lies_behind_it() -> None:
    names = [f"{number}.jpg" for number in range(5)]
    data = bytearray(tar_of(*names))
    data[1536 + 124 : 1536 + 135] = b"77777777777"  # member 1 says that it goes past the end
    data[1536 + 148 : 1536 + 156] = b"%06o\0 " % (sum(data[1536:2048]) - sum(data[1684:1692]) + 8 * 32)
    found = contents(bytes(data))
    assert found.images == ["0.jpg", "2.jpg", "3.jpg", "4.jpg"] and not found.is_whole
    assert not found.is_cut


def test_something_else_between_members() -> None:
    data = bytearray(tar_of("a.jpg", "b.jpg", "c.jpg"))
    data[1536:2048] = b"x" * 512
    found = contents(bytes(data))
    assert found.images == ["a.jpg", "c.jpg"] and not found.is_whole


@pytest.mark.parametrize(("size", "images"), [(1536, 1), (3072, 2), (3072 + 300, 2), (2072, 1), (0, 0), (100, 0)])
def test_a_tar_without_an_end(size: int, images: int) -> None:
    found = contents(tar_of("a.jpg", "b.jpg")[:size])
    assert found.is_cut or not found.is_whole
    assert len(found.images) == images


def test_members_of_an_inner_tar_are_not_counted_wherever_the_outer_one_is_cut(tmp_path: Path) -> None:
    (tmp_path / "inner.tar").write_bytes(tar_of("inner.jpg"))
    with (tmp_path / "sparse.png").open("wb") as file:
        for part in range(10):
            file.seek(part * 16384)
            file.write(b"x" * 4096)
    command = ["tar", "-S", "--format=posix", "-b1", "-C", tmp_path, "-cf", "-", "inner.tar", "sparse.png"]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    for size in range(1024, len(data), 100):
        assert contents(data[:size]).images in ([], ["sparse.png"])


def test_only_headers_are_read(tmp_path: Path) -> None:
    """Allows 1,025 bytes per member: a byte before its header, the header, and the data of an extended header."""

    class Counting(io.BytesIO):
        count = 0

        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            self.count += len(data)
            return data

    data = tar_bytes({f"{number}.jpg": b"x" * 100_000 for number in range(50)})
    file = Counting(data)
    assert len(count_images(file, len(data), image_matcher(())).images) == 50
    assert file.count <= 50 * (1 + 512) + 40 * 512


def test_an_extended_header_larger_than_memory_is_not_read() -> None:
    info = tarfile.TarInfo("a")
    info.type, info.size = tarfile.XHDTYPE, 1 << 40
    data = info.tobuf(tarfile.GNU_FORMAT) + tar_of("a.jpg")
    found = contents(data)
    assert found.images == ["a.jpg"] and not found.is_whole


def test_where_tarfile_gives_up_and_where_the_end_is_one_block() -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 0
    found = contents(info.tobuf(tarfile.GNU_FORMAT) + bytes(512) + tar_of("a.jpg"))
    assert found.images == ["a.jpg"] and not found.is_whole
    assert not contents(tar_of("a.jpg")[: 1536 + 512]).is_cut


def test_families() -> None:
    assert {key_family(name) for name in ("d/a", "d/a.jpg", "d/a.left.jpg", "d/a.jpg#12", "d/a#2.jpg", "d/a#2")} == {
        "d/a"
    }
    assert key_family("d/.a.jpg") == "d/.a" and key_family("a.b/c.jpg") == "a.b/c"
