import os
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.storage.filesystems import filesystem, is_remote, open_at
from pipeline.storage.folder import Folder


def test_urls_name_their_filesystem() -> None:
    assert is_remote("s3://bucket/key") and not is_remote("/a/b") and not is_remote("a:b")


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(InputError, match="nosuch://x"):
        filesystem("nosuch://x")


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_file_is_read_from_an_offset(scheme: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"0123456789")
    with open_at(f"{scheme}{tmp_path}/f", 7) as file:
        assert file.read(2) == b"78" and file.read() == b"9"


def test_local_names_need_not_be_text(tmp_path: Path) -> None:
    (tmp_path / "f\udcff").write_bytes(b"x")
    with open_at(f"{tmp_path}/f\udcff") as file:
        assert file.read() == b"x"


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_folder_holds_files(scheme: str, tmp_path: Path) -> None:
    folder = Folder(f"{scheme}{tmp_path}/out")
    assert folder.names() == [] and folder.names("below") == [] and not folder.exists("b")
    for name in ("b", "below/c", "a"):
        folder.write(name, name.encode())
    assert folder.names() == ["a", "b"] and folder.names("below") == ["c"]
    assert folder.exists("b") and not folder.exists("below")
    folder.write("b", b"new")
    assert folder.read("b") == b"new"
    folder.remove("a")
    assert folder.names() == ["b"]
    with pytest.raises(OSError, match="out/a"):
        folder.read("a")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(str(tmp_path))
    folder.write("f", b"old")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        folder.write("f", b"new")
    assert folder.read("f") == b"old"
