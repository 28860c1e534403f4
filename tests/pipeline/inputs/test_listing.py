import os
from pathlib import Path

import pytest
from conftest import pictures, tar_of_pictures

from pipeline.errors import InputError
from pipeline.inputs.brace_expansion import expand_braces
from pipeline.inputs.listing import Listing, list_inputs
from pipeline.shards import Shard


def ids(listing: Listing) -> list[str]:
    return [shard.image_id or Path(shard.path).name for shard in listing.shards]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("plain.tar", ["plain.tar"]),
        ("{08..11}.tar", ["08.tar", "09.tar", "10.tar", "11.tar"]),
        ("{8..10}", ["8", "9", "10"]),
        ("a{x,y}-{1..2}", ["ax-1", "ax-2", "ay-1", "ay-2"]),
        ("{x,}z", ["xz", "z"]),
        ("{one}", ["{one}"]),
        ("{2..1}", []),
    ],
)
def test_braces(text: str, names: list[str]) -> None:
    assert expand_braces(text) == names


def test_braces_in_the_name_of_a_file_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "{a,b}.jpg").write_bytes(b"x")
    assert [shard.image_id for shard in list_inputs([str(tmp_path / "{a,b}.jpg")]).shards] == ["{a,b}.jpg"]


def test_a_folder_is_listed_with_all_below_it(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/z.png", "a/s.tar", "notes.txt", "README", ".hidden.jpg", "a.x/1.jpeg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    listing = list_inputs([str(tmp_path)])
    assert ids(listing) == ["s.tar", "a/z.png", "a.x/1.jpeg", "b.JPG"]
    assert listing.ignored == {".txt": 1, "no extension": 1, "hidden": 1}


def test_a_folder_that_links_to_itself_is_listed_once(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", 1)
    (folder / "again").symlink_to(folder)
    (folder / "elsewhere").symlink_to(pictures(tmp_path / "other", 1))
    assert ids(list_inputs([str(folder)])) == ["0.jpg", "elsewhere/0.jpg"]


def test_a_named_file_is_taken_whatever_its_extension(tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(b"x")
    assert ids(list_inputs([str(tmp_path / "photo")])) == ["photo"]


def test_a_file_named_twice_is_listed_once(tmp_path: Path) -> None:
    folder = pictures(tmp_path, 2)
    assert ids(list_inputs([str(folder / "1.jpg"), str(folder), str(folder)])) == ["1.jpg", "0.jpg"]


def test_ids_of_a_glob_start_where_the_wildcards_do(tmp_path: Path) -> None:
    for part in ("x", "y"):
        pictures(tmp_path / part, 2)
    assert ids(list_inputs([f"{tmp_path}/*/[0]*"])) == ["x/0.jpg", "y/0.jpg"]


def test_a_name_with_wildcards_may_exist(tmp_path: Path) -> None:
    pictures(tmp_path / "in [1]", 1)
    assert ids(list_inputs([str(tmp_path / "in [1]")])) == ["0.jpg"]


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    pictures(tmp_path / "in", 1)
    assert ids(list_inputs(["~/in"])) == ["0.jpg"]


def test_a_shard_is_known_by_path_size_and_time(tmp_path: Path) -> None:
    tar = tar_of_pictures(tmp_path / "s.tar", 1)

    def identity() -> str:
        (shard,) = list_inputs([str(tar)]).shards
        assert shard.format == "tar"
        return shard.id

    first = identity()
    assert identity() == first
    os.utime(tar, (1, 1))
    moved = identity()
    with tar.open("ab") as file:
        file.write(b"x")
    os.utime(tar, (1, 1))
    assert len({first, moved, identity()}) == 3


def test_what_cannot_be_looked_at_has_no_size(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").symlink_to("nowhere")
    (shard,) = list_inputs([str(tmp_path)]).shards
    assert shard == Shard(str(tmp_path / "broken.jpg"), "broken.jpg", -1, 0)


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(InputError, match="nosuch://bucket"):
        list_inputs(["nosuch://bucket/x.tar"])
