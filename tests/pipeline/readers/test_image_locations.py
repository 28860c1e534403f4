"""Images at the locations that lists name."""

import threading
from pathlib import Path

import fsspec
import pyarrow.fs as pafs
import pytest

from pipeline.errors import DataError
from pipeline.readers.image_locations import read_image_at
from pipeline.storage import filesystems, other_stores


def read(location: str, folder: Path, *, confined: bool = False) -> bytes:
    return read_image_at(location, str(folder), confined=confined, max_bytes=99)


def test_spaces_and_quotes_around_a_path_are_left_out_where_no_name_has_them(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg ", "b.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    for line in (" a.jpg\t", '"a.jpg"', "'a.jpg' ", f"  {tmp_path}/a.jpg"):
        assert read(line, tmp_path) == b"a.jpg"
    assert read("b.jpg ", tmp_path) == b"b.jpg "


def test_the_home_folder_is_found_by_lists_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(b"A")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read("~/a.jpg", tmp_path / "elsewhere") == b"A"
    with pytest.raises(DataError, match="No such file"):
        read("~/a.jpg", tmp_path, confined=True)


def test_a_store_that_does_not_answer_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, over = [], threading.Event()

    class Silent(pafs.FSSpecHandler):  # type: ignore[misc]
        def get_file_info(self, paths: list[str]) -> list[pafs.FileInfo]:
            asked.append(paths)
            over.wait()
            return []

    system = pafs.PyFileSystem(Silent(fsspec.filesystem("memory")))
    monkeypatch.setattr(other_stores, "ANSWER_TIMEOUT_S", 0.01)
    monkeypatch.setattr(filesystems, "_connected", lambda scheme, host: (system, host))
    for image in ("x.jpg", "y.jpg"):
        with pytest.raises(DataError, match="nobody://b did not answer"):
            read(f"nobody://b/{image}", Path("/"))
    over.set()
    assert asked == [["b/x.jpg"]]
