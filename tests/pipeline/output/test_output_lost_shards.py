"""Unreadable shards are distinguished from images that could not be decoded."""

import pyarrow as pa
import pytest

from pipeline.output.commit_log import Commit, CommitLog, Damage, RowRange
from pipeline.output.lost_shards import MAX_REASON_CHARACTERS, find_damage
from pipeline.schema import ROW


def rows(*given: tuple[str, str, str | None]) -> pa.Table:
    fields = ("image_id", "shard", "error_code")
    return pa.Table.from_pylist(
        [dict(zip(fields, row, strict=True)) | {"index": 0, "error_message": "why"} for row in given], schema=ROW
    )


@pytest.mark.parametrize(
    ("image_id", "shard", "code", "is_damage"),
    [
        ("s.tar", "/in/s.tar", "unreadable", True),
        ("s.tar@512", "/in/s.tar", "corrupt_shard", True),
        ("s.tar@512", "/in/s.tar", "unreadable", True),
        ("s.tar", "/in/s.tar", "changed_input", True),
        ("s.tar", "/in/s.tar", "truncated_shard", True),
        ("https://host/a.jpg", "/in/list.txt", "unreadable", False),
        ("key", "/in/s.tar", "corrupt_image", False),
        ("a.jpg", "/in/a.jpg", "unreadable", False),
        ("deep/a.JPG", "/in/deep/a.JPG", "unreadable", False),
        ("key", "/in/s.tar", None, False),
    ],
)
def test_damage_is_of_shards(image_id: str, shard: str, code: str | None, is_damage: bool) -> None:
    found = find_damage(rows((image_id, shard, code)), {shard: "id"})
    assert found == ({"id": Damage(1, f"{code}: why")} if is_damage else {})


def test_the_first_reason_is_kept_and_all_rows_are_counted() -> None:
    table = rows(("s.tar@0", "/s.tar", "corrupt_shard"), ("k", "/s.tar", None), ("s.tar@9", "/s.tar", "unreadable"))
    assert find_damage(table, {"/s.tar": "s"}) == {"s": Damage(2, "corrupt_shard: why")}


def test_a_long_reason_is_cut() -> None:
    table = rows(("s.tar", "/s.tar", "unreadable")).set_column(
        ROW.names.index("error_message"), ROW.field("error_message"), pa.array(["x" * 1000])
    )
    assert len(find_damage(table, {"/s.tar": "s"})["s"].reason) == MAX_REASON_CHARACTERS


def commit(shard: str, start: int, stop: int, damaged: int, reason: str = "first") -> Commit:
    damage = {shard: Damage(damaged, reason)} if damaged else {}
    row_range = RowRange(shard, start, stop, 9, False)
    return Commit(f"part-{start}", stop - start, {}, "f", "k", [row_range], {shard: f"/{shard}"}, 0.0, damage=damage)


def test_a_shard_is_lost_if_all_its_rows_are_damage_whatever_commits_they_are_in() -> None:
    commit_log = CommitLog()
    for one in [commit("s", 0, 1, 1), commit("s", 1, 3, 2, "second"), commit("t", 0, 2, 2), commit("t", 2, 3, 0)]:
        commit_log.add(one)
    assert commit_log.damage() == {"s": Damage(3, "first"), "t": Damage(2, "first")}
    assert commit_log.lost_share("s", commit_log.damage()["s"], 900) == 1.0
    assert commit_log.lost_share("t", commit_log.damage()["t"], 900) == pytest.approx(2 / 3)  # of the rows
    assert commit_log.lost_share("t", Damage(2, "", 9), 900) == pytest.approx(0.01)
    assert CommitLog().damage() == {}


def test_damage_survives_writing_and_reading() -> None:
    before = commit("s", 0, 3, 2)
    assert Commit.decode(before.encode()) == before
