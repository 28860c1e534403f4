"""Verification of outputs that `tests/jobs/test_verify.py` cannot produce."""

import json
from pathlib import Path

import pytest
from captioned_rows import FORMATS, captioned, part_writer
from conftest import tar_of_pictures
from outputs import commit, rows_of

from pipeline.inputs.listing import list_inputs
from pipeline.output.commit_log import CommitLog
from pipeline.output.manifest import finish
from pipeline.schema import CAPTIONED
from pipeline.shards import Shard
from pipeline.storage.folder import Folder
from pipeline.verification.verify import find_problems


def finished(folder: Folder, form: str = "parquet") -> CommitLog:
    commit_log = CommitLog.load(folder)
    finish(folder, commit_log, job={"format": form}, run={}, confirm=lambda: None)
    return commit_log


@pytest.mark.parametrize("form", FORMATS)
def test_rows_in_any_order_and_parts_are_proven(form: str, tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    for positions in ([("t", 3), ("s", 4), ("t", 0)], [("s", 2), ("s", 0), ("s", 1)], [("t", 1), ("t", 2), ("t", 4)]):
        writing = part_writer(folder, file_format=form)
        writing.write(captioned(*positions))
        writing.commit()
    assert list(find_problems(folder, finished(folder, form))) == ["/data/s.tar: rows 3 to 3 are missing"]
    writing = part_writer(folder, file_format=form)
    writing.write(captioned(("s", 3)))
    writing.commit()
    assert list(find_problems(folder, finished(folder, form))) == []


def test_rows_committed_twice_are_named(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    for positions in ([("t", index) for index in range(5)], [("t", 1), ("t", 2)]):
        writing = part_writer(folder)
        writing.write(captioned(*positions))
        writing.commit()
    assert list(find_problems(folder, finished(folder))) == [
        "/data/t.tar: row 1 occurs more than once, or after the last row"
    ]


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("error_code", None, "k1 has neither a caption nor an error, or both"),
        ("caption", "a dog", "k1 has neither a caption nor an error, or both"),
        ("error_code", "bad_luck", "k1 has an unknown error code 'bad_luck'"),
    ],
)
def test_rows_are_a_caption_or_a_typed_error(column: str, value: str | None, problem: str, tmp_path: Path) -> None:
    rows = captioned(*(("t", index) for index in range(5))).to_pylist()
    rows[1][column] = value
    folder = Folder(str(tmp_path))
    writing = part_writer(folder)
    writing.write(captioned().from_pylist(rows, schema=CAPTIONED))
    writing.commit()
    (found,) = find_problems(folder, finished(folder))
    assert found.endswith(problem)


def test_an_empty_listing_is_not_no_listing(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    writing = part_writer(folder)
    writing.write(captioned(*(("t", index) for index in range(5))))
    writing.commit()
    commit_log = finished(folder)
    assert list(find_problems(folder, commit_log)) == []
    assert list(find_problems(folder, commit_log, [])) == ["/data/t.tar: in the output but not in the input"]


def test_files_that_the_listing_left_out_are_named(tmp_path: Path) -> None:
    tar, folder = tar_of_pictures(tmp_path / "s.tar", 2), Folder(str(tmp_path / "out"))
    (tmp_path / "link.tar").symlink_to(tar)
    shards = list_inputs([str(tar)]).shards
    commit_log = commit(folder, rows_of(shards))
    others = ["/elsewhere/s.tar", "s3://bucket/s.tar"]
    files = [str(tar), others[0], str(tmp_path / "link.tar"), others[1]]
    assert list(find_problems(folder, commit_log, shards, files=files)) == [
        f"{path}: in the input, but neither in the job's listing nor in the output" for path in others
    ]


def test_a_shard_that_cannot_be_read_now_is_named(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    shard = Shard("/data/t.tar", "", -1, 0)
    rows = [row | {"shard_id": shard.id} for row in captioned(*(("t", index) for index in range(5))).to_pylist()]
    writing = part_writer(folder)
    writing.write(captioned().from_pylist(rows, schema=CAPTIONED))
    writing.commit()
    (found,) = find_problems(folder, finished(folder), [shard])
    assert found.startswith("/data/t.tar: cannot be read now, to compare it with its rows: ")


def test_the_manifest_must_name_every_part(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    writing = part_writer(folder)
    writing.write(captioned(*(("t", index) for index in range(5))))
    writing.commit()
    commit_log = finished(folder)
    manifest = json.loads(folder.read("_manifest.json"))
    folder.write("_manifest.json", json.dumps(manifest | {"files": {}}).encode())
    (found,) = find_problems(folder, commit_log)
    assert found.startswith(f"{commit_log.commits[0].file}: the manifest says None")
