"""Inputs that the output already holds under another name."""

from dataclasses import replace

import pytest

from pipeline.filenames import printable
from pipeline.inputs.renamed import find_renamed
from pipeline.shards import Shard

TAR = Shard("/old/in/s.tar", "", 9000, 17)
IMAGE = Shard("/old/in/deep/a.jpg", "deep/a.jpg", 500, 18)


def recorded(*shards: Shard) -> dict[str, str]:
    return {printable(shard.path): shard.id for shard in shards}


def moved(shard: Shard, **changes: object) -> Shard:
    return replace(shard, **{"path": shard.path.replace("/old/", "/new/")} | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("shard", [TAR, IMAGE, Shard("/old/in/f\udcff.tar", "", 3, 4)])
def test_a_moved_file_is_known_again(shard: Shard) -> None:
    found = list(find_renamed(recorded(TAR, IMAGE, shard), [moved(shard)]))
    assert found == [(printable(moved(shard).path), printable(shard.path))]


def test_the_names_of_then_are_no_others() -> None:
    assert list(find_renamed(recorded(TAR, IMAGE), [TAR, IMAGE])) == []


def test_a_file_of_another_size_or_time_is_another() -> None:
    others = [moved(TAR, size=9001), moved(TAR, mtime_ns=18), moved(IMAGE, size=1), moved(IMAGE, mtime_ns=1)]
    assert list(find_renamed(recorded(TAR, IMAGE), others)) == []


def test_a_copy_beside_its_original_is_another() -> None:
    assert list(find_renamed(recorded(TAR), [TAR, moved(TAR)])) == []


@pytest.mark.parametrize("image_id", ["a.jpg", "in/deep/a.jpg"])
def test_a_folder_named_from_above_or_below_is_known_again(image_id: str) -> None:
    assert len(list(find_renamed(recorded(IMAGE), [moved(IMAGE, image_id=image_id)]))) == 1


def test_many_files_of_one_name_are_told_apart_by_their_folders() -> None:
    shards = [Shard(f"/old/{i}/image.jpg", f"{i}/image.jpg", 500, 18) for i in range(150)]
    assert list(find_renamed(recorded(*shards), [moved(shards[140])])) == [("/new/140/image.jpg", "/old/140/image.jpg")]
