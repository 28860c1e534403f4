import hashlib
import json
import re
from pathlib import Path

import pyarrow as pa
import pytest
from captioned_rows import FORMATS, captioned, part_writer

from pipeline.errors import OutputError
from pipeline.output.commit_log import CommitLog, Damage, RowRange
from pipeline.output.part_reader import read_part, read_rows
from pipeline.output.writer import PartWriter
from pipeline.schema import ROW
from pipeline.storage.folder import Folder


@pytest.mark.parametrize("form", FORMATS)
def test_rows_come_back_in_order_as_they_were(form: str, tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    writing = part_writer(folder, file_format=form)
    writing.write(captioned(("t", 3), ("s", 4)))
    writing.write(captioned(("t", 2), ("t", 4)))
    writing.commit()
    (table,) = read_rows(folder, CommitLog.load(folder))
    assert table.schema == ROW
    assert table.to_pylist() == captioned(("s", 4), ("t", 2), ("t", 3), ("t", 4)).select(ROW.names).to_pylist()


@pytest.mark.parametrize("form", FORMATS)
def test_the_record_describes_the_part(form: str, tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    writing = part_writer(folder, file_format=form)
    writing.write(captioned(("t", 3), ("s", 4), ("t", 4)))
    writing.commit()
    (commit,) = CommitLog.load(folder).commits
    assert (commit.rows, commit.errors) == (3, {"corrupt_image": 1})
    assert commit.row_ranges == [RowRange("s", 4, 5, 5000, True), RowRange("t", 3, 5, 5000, True)]
    assert commit.paths == {"s": "/data/s.tar", "t": "/data/t.tar"}
    assert commit.file_sha256 == hashlib.sha256((tmp_path / commit.file).read_bytes()).hexdigest()


@pytest.mark.parametrize("form", FORMATS)
def test_some_columns_can_be_read(form: str, tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    writing = part_writer(folder, file_format=form)
    writing.write(captioned(("t", 0)))
    writing.commit()
    (commit,) = CommitLog.load(folder).commits
    assert read_part(folder, commit.file, ["caption", "index"]).to_pylist() == [
        {"caption": "a ‘dog’\nruns", "index": 0}
    ]


def test_a_part_is_committed_when_it_is_full(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    writing = part_writer(folder, rows_per_file=3)
    for index in range(5):
        writing.write(captioned(("t", index)))
        assert CommitLog.load(folder).rows == (3 if index >= 2 else 0)
    writing.commit()
    assert CommitLog.load(folder).rows == 5


def test_a_part_is_committed_when_its_first_rows_have_waited_long(tmp_path: Path) -> None:
    folder, now = Folder(str(tmp_path)), [1000.0]
    writing = PartWriter(
        folder, CommitLog(), file_format="parquet", rows_per_file=100, commit_interval_s=60.0, clock=lambda: now[0]
    )
    committed = []
    for index, time in enumerate([1000.0, 1059.9, 1060.0, 1100.0, 1160.0]):
        now[0] = time
        writing.write(captioned(("t", index)))
        committed.append(CommitLog.load(folder).rows)
    assert committed == [0, 0, 3, 3, 5]


def test_rows_that_wait_are_counted(tmp_path: Path) -> None:
    writing = part_writer(Folder(str(tmp_path)), rows_per_file=4)
    waiting = []
    for index in range(3):
        writing.write(captioned(("s", index), ("t", index)))
        waiting.append(writing.rows_waiting)
    assert waiting == [2, 0, 2]


def test_the_ledger_gets_every_commit(tmp_path: Path) -> None:
    folder, commit_log = Folder(str(tmp_path)), CommitLog()
    writing = PartWriter(folder, commit_log, file_format="jsonl", rows_per_file=2)
    for index in range(4):
        writing.write(captioned(("t", index)))
    assert commit_log.rows == 4 and commit_log.errors == {"corrupt_image": 2}
    assert sorted(commit_log.commits, key=lambda c: c.file) == CommitLog.load(folder).commits


def test_a_driver_confirms_after_the_part_and_before_its_record(tmp_path: Path) -> None:
    folder, there = Folder(str(tmp_path)), []
    confirm = lambda: there.append((len(folder.names()), len(folder.names("_commits"))))  # noqa: E731
    writing = PartWriter(folder, CommitLog(), file_format="parquet", rows_per_file=1, confirm=confirm)
    for index in range(2):
        writing.write(captioned(("t", index)))
    assert there == [(1, 0), (2, 1)]


def test_a_driver_that_may_not_commit_leaves_nothing(tmp_path: Path) -> None:
    def lost() -> None:
        raise OutputError("taken over")

    folder, commit_log = Folder(str(tmp_path)), CommitLog()
    writing = PartWriter(folder, commit_log, file_format="parquet", rows_per_file=1, confirm=lost)
    with pytest.raises(OutputError, match="taken over"):
        writing.write(captioned(("t", 0)))
    assert commit_log.commits == [] and folder.names() == folder.names("_commits") == []


def test_the_record_has_the_parts_name_and_its_drivers_epoch(tmp_path: Path) -> None:
    folder, names = Folder(str(tmp_path)), set()
    for epoch in ("000001-a", "000002-b"):
        writing = PartWriter(folder, CommitLog(), file_format="parquet", rows_per_file=1, epoch=epoch)
        writing.write(captioned(("t", 0)))
        (commit,) = (one for one in CommitLog.load(folder).commits if one.epoch == epoch)
        assert commit.record == f"_commits/{commit.file.removesuffix('.parquet')}.commit"
        names.add(commit.file)
    assert len(names) == 2 and all(re.fullmatch(r"part-[0-9a-f]{16}\.parquet", name) for name in names)


def test_what_is_damaged_is_in_the_record(tmp_path: Path) -> None:
    rows = captioned(("t", 3), ("t", 4), ("s", 1))
    codes = pa.array(["corrupt_shard", None, "corrupt_image"])
    rows = rows.set_column(rows.schema.get_field_index("error_code"), rows.schema.field("error_code"), codes)
    commit_log = CommitLog()
    PartWriter(Folder(str(tmp_path)), commit_log, file_format="jsonl", rows_per_file=1).write(rows)
    assert commit_log.commits[0].damage == {"t": Damage(1, "corrupt_shard: cut")}


def test_when_a_commit_was_made_is_in_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.output.writer.time.time", lambda: 1234.56789)
    commit_log = CommitLog()
    PartWriter(Folder(str(tmp_path)), commit_log, file_format="jsonl", rows_per_file=1).write(captioned(("t", 0)))
    assert (commit_log.commits[0].committed, commit_log.commits[0].replaces) == (1234.568, "")


def test_nothing_to_commit_writes_nothing(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "out"))
    part_writer(folder).commit()
    assert not (tmp_path / "out").exists()


def test_the_same_rows_replace_themselves(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    for order in ([0, 1], [1, 0]):
        writing = part_writer(folder)
        writing.write(captioned(*(("t", index) for index in order)))
        writing.commit()
    assert len(list(tmp_path.glob("part-*"))) == 1
    assert CommitLog.load(folder).rows == 2


def test_jsonl_is_utf8_with_every_column_in_every_line(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    writing = part_writer(folder, file_format="jsonl")
    writing.write(captioned(("t", 0), ("t", 1)))
    writing.commit()
    (part,) = tmp_path.glob("part-*.jsonl")
    assert "‘dog’" in part.read_text("utf-8")
    assert [list(json.loads(line)) for line in part.read_text("utf-8").splitlines()] == [ROW.names] * 2
