import dataclasses
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import OutputError
from pipeline.output import epochs
from pipeline.output.commit_log import Commit, CommitLog, RowRange, missing_ranges
from pipeline.output.epochs import Epoch
from pipeline.output.part_summary import find_row_ranges, hash_keys
from pipeline.shards import Shard, Span
from pipeline.storage.folder import Folder

TAR = Shard("/data/s.tar", "", 9000, 17)
IMAGE = Shard("/data/a.jpg", "a.jpg", 500, 18)


def row_range(start: int, stop: int, *, last: bool = False, shard: Shard = TAR) -> RowRange:
    return RowRange(shard.id, start, stop, stop * 1000, last)


def commit(*row_ranges: RowRange, name: str = "part-1", **errors: int) -> Commit:
    rows = sum(i.stop - i.start for i in row_ranges)
    paths = {shard.id: shard.path for shard in (TAR, IMAGE) if any(i.shard == shard.id for i in row_ranges)}
    return Commit(f"{name}.parquet", rows, errors, "f" * 64, "k" * 64, list(row_ranges), paths, 0.0)


@pytest.mark.parametrize(
    ("committed", "left"),
    [
        ([], [(0, 0, None)]),
        ([(0, 4, True)], []),
        ([(0, 3, False)], [(3, 3000, None)]),
        ([(2, 4, True)], [(0, 0, 2)]),
        ([(5, 6, True), (0, 1, False), (2, 4, False)], [(1, 1000, 2), (4, 4000, 5)]),
        ([(0, 3, False), (1, 2, False)], [(3, 3000, None)]),
        ([(0, 3, False), (2, 5, True)], []),
    ],
)
def test_gaps_are_what_the_intervals_leave_out(
    committed: list[tuple[int, int, bool]], left: list[tuple[int, int, int | None]]
) -> None:
    row_ranges = [row_range(start, stop, last=last) for start, stop, last in committed]
    assert list(missing_ranges(TAR, row_ranges)) == [Span(TAR, *span) for span in left]


def test_a_record_survives_writing_and_reading() -> None:
    before = commit(row_range(0, 3), row_range(0, 1, last=True, shard=IMAGE), empty_file=1)
    assert Commit.decode(before.encode()) == before


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b'{"intervals": [[1, 2]]}', b'{"intervals": 3}'])
def test_what_is_no_record_is_refused_by_name(data: bytes, tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.write("_commits/part-x.commit", data)
    with pytest.raises(OutputError, match=r"part-x\.commit is damaged"):
        CommitLog.load(folder)


def test_unfinished_records_do_not_count(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.write("_commits/part-1.commit", commit(row_range(0, 3), empty_file=2).encode())
    folder.write("_commits/part-2.commit", commit(row_range(3, 4), name="part-2", empty_file=1, no_image=0).encode())
    for name in (".part-3.commit.tmp", ".part-4.commit", "notes.txt"):
        (tmp_path / "_commits" / name).write_bytes(b"{")
    commit_log = CommitLog.load(folder)
    assert (commit_log.rows, commit_log.errors) == (4, {"empty_file": 3, "no_image": 0})
    assert list(commit_log.remaining_work([TAR, IMAGE])) == [Span(TAR, 4, 4000), Span(IMAGE)]


def test_a_changed_shard_is_refused() -> None:
    commit_log = CommitLog()
    commit_log.add(commit(row_range(0, 3)))
    with pytest.raises(OutputError, match=r"/data/s\.tar has changed"):
        list(commit_log.remaining_work([Shard(TAR.path, "", TAR.size + 1, TAR.mtime_ns)]))


def rows(*positions: tuple[str, int, int, bool]) -> pa.Table:
    shards, indices, offsets, last = zip(*positions, strict=True)
    return pa.table({"shard_id": shards, "index": indices, "next_offset": offsets, "last": last})


def test_rows_in_any_order_make_intervals() -> None:
    found = find_row_ranges(rows(("t", 2, 30, True), ("s", 0, 9, True), ("t", 0, 10, False), ("t", 1, 20, False)))
    assert found == [RowRange("s", 0, 1, 9, True), RowRange("t", 0, 3, 30, True)]


def test_a_missing_row_parts_two_intervals() -> None:
    found = find_row_ranges(rows(("t", 4, 50, False), ("t", 2, 30, False)))
    assert found == [RowRange("t", 2, 3, 30, False), RowRange("t", 4, 5, 50, False)]


def test_the_hash_of_keys_depends_on_the_rows_and_not_on_their_order() -> None:
    table = pa.table({"shard": ["s", "s", "t"], "index": [0, 1, 0], "image_id": ["a", "b", "a"]})
    assert hash_keys(table) == hash_keys(table.take([2, 0, 1]))
    assert hash_keys(table) != hash_keys(table.slice(1))
    renamed = table.set_column(2, "image_id", pa.array(["a", "c", "a"]))
    assert hash_keys(table) != hash_keys(renamed)


def test_rows_of_several_shards_that_follow_each_other_make_one_interval_each() -> None:
    found = find_row_ranges(
        rows(*((shard, index, 10 * index, index == 3) for index in (1, 2, 3) for shard in ("s", "t", "u")))
    )
    assert found == [RowRange(shard, 1, 4, 30, True) for shard in ("s", "t", "u")]


def test_a_row_that_ends_a_shard_is_not_joined_by_the_next_shards_first() -> None:
    found = find_row_ranges(rows(("s", 0, 9, True), ("t", 1, 20, False)))
    assert found == [RowRange("s", 0, 1, 9, True), RowRange("t", 1, 2, 20, False)]


def test_commits_are_counted_in_and_out() -> None:
    commit_log, first = CommitLog(), commit(row_range(0, 3), no_image=2)
    second = commit(row_range(3, 5, last=True), row_range(0, 1, last=True, shard=IMAGE), name="part-2", empty_file=1)
    commit_log.add(first)
    commit_log.add(second)
    assert commit_log.commits == [first, second] and commit_log.rows == 6
    assert list(commit_log.errors.items()) == [("empty_file", 1), ("no_image", 2)]
    assert commit_log.row_ranges == {
        TAR.id: [row_range(0, 3), row_range(3, 5, last=True)],
        IMAGE.id: [row_range(0, 1, last=True, shard=IMAGE)],
    }
    assert commit_log.shard_ids == {TAR.path: TAR.id, IMAGE.path: IMAGE.id}
    assert list(commit_log.remaining_work([TAR, IMAGE])) == []
    commit_log.remove(second)
    assert commit_log.commits == [first] and commit_log.shard_ids == {TAR.path: TAR.id}
    assert list(commit_log.remaining_work([TAR, IMAGE])) == [Span(TAR, 3, 3000), Span(IMAGE)]


@pytest.mark.parametrize(("file", "record"), [("part-1.parquet", "part-1"), ("part-1.2.jsonl", "part-1.2")])
def test_a_record_has_its_parts_name(file: str, record: str) -> None:
    made = Commit(file, 0, {}, "", "", [], {}, 0.0)
    assert made.record == f"_commits/{record}.commit"


def store(folder: Folder, *commits: Commit) -> None:
    for one in commits:
        folder.write(one.record, one.encode())


def of(epoch: str, name: str, *row_ranges: RowRange, replaces: str = "") -> Commit:
    return dataclasses.replace(commit(*row_ranges, name=name), epoch=epoch, replaces=replaces)


def test_commits_count_that_the_newest_driver_made_or_found(tmp_path: Path) -> None:
    folder, before = Folder(str(tmp_path)), of("", "part-0", row_range(0, 1))
    found, late = of("000001-a", "part-1", row_range(1, 2)), of("000001-a", "part-2", row_range(2, 3))
    own = of("000002-b", "part-3", row_range(2, 4))
    store(folder, before, found, late, own)
    assert len(CommitLog.load(folder).commits) == 4  # of a version without epochs
    epochs.write_snapshot(folder, Epoch(2, "b"), [before.file, found.file], {})
    commit_log = CommitLog.load(folder)
    assert commit_log.commits == [before, found, own] and commit_log.stale == [late]


def test_a_commit_that_does_not_count_replaces_nothing(tmp_path: Path) -> None:
    folder, before = Folder(str(tmp_path)), of("000001-a", "part-1", row_range(0, 2))
    late = of("000001-a", "part-2", row_range(0, 1), replaces=before.file)
    own = of("000002-b", "part-3", row_range(0, 1), replaces=before.file)
    store(folder, before, late)
    epochs.write_snapshot(folder, Epoch(2, "b"), [before.file], {})
    assert CommitLog.load(folder).commits == [before] and CommitLog.load(folder).superseded == []
    store(folder, own)
    assert CommitLog.load(folder).commits == [own] and CommitLog.load(folder).superseded == [before]
