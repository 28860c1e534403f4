import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.ledger import Interval, Ledger
from pipeline.output import read_part, read_rows
from pipeline.schema import CAPTIONED, ROW
from pipeline.sink import Sink
from pipeline.storage import Folder

FORMATS = ("parquet", "jsonl")


def captioned(*positions: tuple[str, int]) -> pa.Table:
    """Rows of shards by name and index, the fifth of each its last; odd ones are errors."""
    return pa.Table.from_pylist(
        [
            {
                "image_id": f"k{index}",
                "shard": f"/data/{shard}.tar",
                "index": index,
                "shard_id": shard,
                "next_offset": 1000 * (index + 1),
                "last": index == 4,
                "caption": None if index % 2 else "a ‘dog’\nruns",
                "log_prob": None if index % 2 else -1.5,
                "num_tokens": None if index % 2 else 4,
                "candidates": None if index % 2 else [{"caption": "a ‘dog’\nruns", "log_prob": -1.5}],
                "width": 30,
                "height": 20,
                "error_code": "corrupt_image" if index % 2 else None,
                "error_message": "cut" if index % 2 else None,
            }
            for shard, index in positions
        ],
        schema=CAPTIONED,
    )


def sink(folder: Folder, *, form: str = "parquet", fragment_rows: int = 100, fragment_s: float = 1e9) -> Sink:
    return Sink(folder, Ledger.load(folder), form=form, fragment_rows=fragment_rows, fragment_s=fragment_s)


@pytest.mark.parametrize("form", FORMATS)
def test_rows_come_back_in_order_as_they_were(form: str, tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    writing = sink(folder, form=form)
    writing.write(captioned(("t", 3), ("s", 4)))
    writing.write(captioned(("t", 2), ("t", 4)))
    writing.commit()
    (table,) = read_rows(folder, Ledger.load(folder))
    assert table.schema == ROW
    assert table.to_pylist() == captioned(("s", 4), ("t", 2), ("t", 3), ("t", 4)).select(ROW.names).to_pylist()


@pytest.mark.parametrize("form", FORMATS)
def test_the_record_describes_the_part(form: str, tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    writing = sink(folder, form=form)
    writing.write(captioned(("t", 3), ("s", 4), ("t", 4)))
    writing.commit()
    (commit,) = Ledger.load(folder).commits
    assert (commit.rows, commit.errors) == (3, {"corrupt_image": 1})
    assert commit.intervals == [Interval("s", 4, 5, 5000, True), Interval("t", 3, 5, 5000, True)]
    assert commit.paths == {"s": "/data/s.tar", "t": "/data/t.tar"}
    assert commit.file_sha256 == hashlib.sha256((tmp_path / commit.file).read_bytes()).hexdigest()


@pytest.mark.parametrize("form", FORMATS)
def test_some_columns_can_be_read(form: str, tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    writing = sink(folder, form=form)
    writing.write(captioned(("t", 0)))
    writing.commit()
    (commit,) = Ledger.load(folder).commits
    assert read_part(folder, commit.file, ["caption", "index"]).to_pylist() == [
        {"caption": "a ‘dog’\nruns", "index": 0}
    ]


def test_a_part_is_committed_when_it_is_full(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    writing = sink(folder, fragment_rows=3)
    for index in range(5):
        writing.write(captioned(("t", index)))
        assert Ledger.load(folder).rows == (3 if index >= 2 else 0)
    writing.commit()
    assert Ledger.load(folder).rows == 5


def test_a_part_is_committed_when_it_has_waited_long(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    writing = sink(folder, fragment_s=0)
    writing.write(captioned(("t", 0)))
    assert Ledger.load(folder).rows == 1


def test_nothing_to_commit_writes_nothing(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "out"))
    sink(folder).commit()
    assert not (tmp_path / "out").exists()


def test_the_same_rows_replace_themselves(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    for order in ([0, 1], [1, 0]):
        writing = sink(folder)
        writing.write(captioned(*(("t", index) for index in order)))
        writing.commit()
    assert len(list(tmp_path.glob("part-*"))) == 1
    assert Ledger.load(folder).rows == 2


def test_jsonl_is_utf8_with_every_column_in_every_line(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    writing = sink(folder, form="jsonl")
    writing.write(captioned(("t", 0), ("t", 1)))
    writing.commit()
    (part,) = tmp_path.glob("part-*.jsonl")
    assert "‘dog’" in part.read_text("utf-8")
    assert [list(json.loads(line)) for line in part.read_text("utf-8").splitlines()] == [ROW.names] * 2
