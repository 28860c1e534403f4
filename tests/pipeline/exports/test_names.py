"""Names of sidecars: none leads out of its folder, and no two images share one."""

import os
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.exports.names import SidecarNames, below, common_folder
from pipeline.output.commit_log import CommitLog

PART = st.sampled_from(["a", "b", "..", ".", "", "ü", "x" * 250, "a.b", "\\xff", "a\0"]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=5
)
KEYS = st.lists(st.lists(PART, min_size=1, max_size=4).map("/".join), unique=True, max_size=8)


def row(shard: str, image_id: str, index: int = 0) -> dict[str, Any]:
    return {"shard": shard, "image_id": image_id, "index": index}


@given(KEYS)
def test_images_of_tars_have_names_of_their_own_below_the_folder(keys: list[str]) -> None:
    shards = ("/in/0.tar", "/in/s/0.tar")
    names = SidecarNames(CommitLog(shard_ids={shard: shard for shard in shards}), extension="txt", as_bytes=True)
    found = [names.name(row(shard, key, index)) for shard in shards for index, key in enumerate(keys)]
    assert len({os.path.normpath(name) for name in found}) == len(found) == 2 * len(keys)
    for name in found:
        assert not Path(name).is_absolute() and os.path.normpath(name) == name and not name.startswith("..")
        assert max(len(os.fsencode(part)) for part in name.split("/")) <= 255 and "\0" not in name


@given(st.lists(st.sampled_from(["dog.jpg", "dog.png", "dog.jpg.png", "cat.jpg", "b/dog.jpg"]), unique=True))
def test_images_of_one_name_have_names_of_their_own(ids: list[str]) -> None:
    log = CommitLog(shard_ids={f"/in/{image_id}": image_id for image_id in ids})
    names = SidecarNames(log, extension="txt", as_bytes=True)
    found = {image_id: names.name(row(f"/in/{image_id}", image_id)) for image_id in ids}
    assert len(set(found.values())) == len(ids)
    assert "dog.png" in ids or found.get("dog.jpg", "dog.txt") == "dog.txt"


def test_folders_in_common() -> None:
    assert common_folder(["/a/b/1.tar", "/a/bc/2.tar"]) == "/a" and below("/a/bc/2.tar", "/a") == "bc/2.tar"
    assert common_folder(["s3://x/a/1.tar", "s3://x/2.tar"]) == "s3://x"
    assert common_folder(["s3://x/1.tar", "/x/2.tar"]) == "" and below("s3://x/1.tar", "") == "s3/x/1.tar"
    assert common_folder([]) == ""
