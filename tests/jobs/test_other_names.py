"""An input that was renamed is not captioned twice."""

import os
import shutil
from pathlib import Path

import pytest
from conftest import Run, jpeg, pictures, rows_of, tar_of_pictures


@pytest.fixture
def folder(tmp_path: Path, caption: Run) -> Path:
    """Two images and a tar of three, captioned."""
    folder = pictures(tmp_path / "data" / "in", 2)
    tar_of_pictures(folder / "s.tar", 3)
    assert caption(folder)[0] == 0
    return folder


@pytest.mark.parametrize(
    "name", ["file://{0}", "file://localhost{0}", "{0}/", "{0}/../in", "{0}/.", "{0}/../../data//in", "in", "./in/"]
)
def test_other_ways_to_write_its_path_are_recognised(  # noqa: PLR0917
    name: str, folder: Path, tmp_path: Path, caption: Run, shardtalk: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    given = name.format(folder)
    code, said = caption(given)
    assert code == 0 and "this run 0 rows" in said
    assert shardtalk("verify", tmp_path / "out", given)[0] == 0


def by_a_link(folder: Path) -> Path:
    (folder.parent / "link").symlink_to(folder)
    return folder.parent / "link"


def moved(folder: Path) -> Path:
    return folder.rename(folder.parent / "moved")


def mounted_elsewhere(folder: Path) -> Path:
    return folder.parent.rename(folder.parents[1] / "mnt") / "in"


def copied_with_its_times(folder: Path) -> Path:
    return Path(shutil.copytree(folder, folder.parent / "copy"))


@pytest.mark.parametrize("change", [by_a_link, moved, mounted_elsewhere, copied_with_its_times])
def test_another_name_is_refused_with_the_one_of_then(
    change: object, folder: Path, tmp_path: Path, caption: Run
) -> None:
    now = change(folder)  # type: ignore[operator]
    before = rows_of(tmp_path / "out")
    code, said = caption(now)
    assert code == 2 and said.count("\n") == 1
    assert f"{now}/0.jpg is {folder}/0.jpg in this output" in said and "2 others" in said
    assert rows_of(tmp_path / "out") == before


def test_a_link_at_the_old_place_is_as_good(folder: Path, tmp_path: Path, caption: Run) -> None:
    folder.symlink_to(folder.rename(tmp_path / "moved"))
    code, said = caption(folder)
    assert code == 0 and "this run 0 rows" in said


def test_a_folder_may_grow_and_shrink(folder: Path, tmp_path: Path, caption: Run) -> None:
    (folder / "0.jpg").unlink()
    (folder / "new.jpg").write_bytes(jpeg(7))
    code, said = caption(folder)
    assert code == 0 and "this run 1 rows" in said
    assert "1 files of this output are not among the inputs now; their rows stay" in said


def test_other_inputs_may_join(folder: Path, tmp_path: Path, caption: Run) -> None:
    other = tar_of_pictures(tmp_path / "other" / "s.tar", 3, first=5)
    os.utime(other, ns=(1, 1))
    assert caption(other)[0] == 0
    assert len(rows_of(tmp_path / "out")) == 8


def test_an_output_by_its_file_url_is_the_same(folder: Path, tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    code, said = caption(folder, "--output", f"file://{tmp_path}/out")
    assert code == 0 and "this run 0 rows" in said
    assert shardtalk("verify", f"file://{tmp_path}/out", folder)[0] == 0
