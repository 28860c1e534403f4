"""What a commit record says of the rows of a part."""

import hashlib
import json

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.output.commit_log import Commit, CommitLog, Damage, RowRange
from pipeline.output.part_summary import MAX_REASON_CHARACTERS, find_damage, find_paths, find_row_ranges, hash_keys
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


rows_of_parts = st.lists(
    st.tuples(st.text(max_size=4), st.integers(0, 9), st.text(max_size=3), st.integers(0, 99), st.booleans()),
    max_size=30,
)


def part(found: list[tuple[str, int, str, int, bool]]) -> pa.Table:
    names = ("shard", "index", "image_id", "next_offset", "last")
    types = (pa.string(), pa.int64(), pa.string(), pa.int64(), pa.bool_())
    columns = zip(*found, strict=True) if found else [()] * len(names)
    table = pa.table([pa.array(list(column), kind) for column, kind in zip(columns, types, strict=True)], names=names)
    table = table.append_column("shard_id", table["shard"])
    return pa.concat_tables([table.slice(0, 7), table.slice(7)])  # of several chunks


@given(rows_of_parts)
@example([("/in/s.tar", 3, "a\x7f~", 1, False), ("/in/s.tar", 10, 'q"', 1, False), ("/in/é.tar", 2, "\\", 1, True)])
@example([("\U0001f600", 0, "\uffff", 0, True), ("\uffff", 0, "\x00\n", 0, True)])
def test_the_hash_of_keys_is_that_of_their_json(found: list[tuple[str, int, str, int, bool]]) -> None:
    keys = sorted((shard, index, image_id) for shard, index, image_id, *_ in found)
    expected = hashlib.sha256("".join(json.dumps(list(key)) for key in keys).encode()).hexdigest()
    assert hash_keys(part(found)) == expected


def test_the_hash_of_more_keys_than_are_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    table = part([("s", i, str(i), i, False) for i in range(30)])
    whole = hash_keys(table)
    monkeypatch.setattr("pipeline.output.part_summary.HASHED_ROWS", 7)
    assert hash_keys(table) == whole


@given(rows_of_parts)
def test_row_ranges_are_runs_of_consecutive_rows(found: list[tuple[str, int, str, int, bool]]) -> None:
    expected: list[RowRange] = []
    for shard, index, next_offset, last in sorted((row[0], row[1], row[3], row[4]) for row in found):
        if expected and (expected[-1].shard, expected[-1].stop) == (shard, index):
            start = expected.pop().start
        else:
            start = index
        expected.append(RowRange(shard, start, index + 1, next_offset, last))
    assert find_row_ranges(part(found)) == expected


@given(rows_of_parts)
def test_paths_are_those_of_the_shards(found: list[tuple[str, int, str, int, bool]]) -> None:
    assert find_paths(part(found)) == {row[0]: row[0] for row in found}
