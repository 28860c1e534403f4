"""Unreadable shards are counted as shards, not as single error rows."""

import re
from pathlib import Path

import pytest
from conftest import Run, pictures, rows_of, tar_of_pictures


@pytest.fixture
def inputs(tmp_path: Path) -> list[Path]:
    """Inputs of twenty images in one tar, and three tars of other bytes."""
    for i in range(3):
        (tmp_path / f"bad{i}.tar").write_bytes(b"no tar " * 200)
    return [tar_of_pictures(tmp_path / "good.tar", 20), *(tmp_path / f"bad{i}.tar" for i in range(3))]


def test_a_job_whose_shards_are_lost_fails(inputs: list[Path], tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    code, said = caption(*inputs)
    assert code == 1 and "3 of 4 shards could not be read" in said
    assert f"{inputs[1]}: corrupt_shard: " in said
    assert len(rows_of(tmp_path / "out")) == 23
    assert not (tmp_path / "out" / "_manifest.json").exists()
    code, said = caption(*inputs)  # a rerun that has nothing to do judges the same
    assert code == 1 and "3 of 4 shards could not be read" in said
    code, said = caption(*inputs, "--max_lost_shards", 0.75)
    assert code == 0 and "this run 0 rows" in said and "3 shards could not be read" in said
    assert shardtalk("verify", tmp_path / "out", *inputs)[0] == 0


def test_a_job_that_accepts_all_errors_accepts_these(inputs: list[Path], caption: Run) -> None:
    assert caption(*inputs, "--max_error_rate", 1)[0] == 0
    assert caption(*inputs, "--max_error_rate", 1, "--max_lost_shards", 0.5)[0] == 1


def test_more_reasons_than_anybody_reads_are_cut_short(tmp_path: Path, caption: Run) -> None:
    for i in range(9):
        (tmp_path / f"bad{i}.tar").write_bytes(b"no tar " * 200)
    code, said = caption(tar_of_pictures(tmp_path / "good.tar", 20), tmp_path / "bad*.tar")
    assert code == 1 and "9 of 10 shards" in said and "and 6 more" in said and said.count("corrupt_shard: ") == 3


def test_a_damaged_shard_is_not_a_lost_one(tmp_path: Path, caption: Run) -> None:
    tar = tar_of_pictures(tmp_path / "s.tar", 3)
    tar.write_bytes(tar.read_bytes()[:-1600])
    code, said = caption(tar)
    assert code == 0 and "1 shards are damaged" in said


@pytest.mark.parametrize(("covered", "expected"), [(0.8, 1), (0.3, 0)])
def test_a_shard_of_which_most_bytes_are_lost_is_lost(
    covered: float, expected: int, tmp_path: Path, caption: Run
) -> None:
    tar = tar_of_pictures(tmp_path / "s.tar", 20)
    data = tar.read_bytes()
    start = 2 * len(data) // 20 // 512 * 512
    tar.write_bytes(data[:start] + b"\xff" * int(covered * len(data)) + data[start + int(covered * len(data)) :])
    for _ in range(2):
        code, said = caption(tar)
        assert code == expected
        assert ("1 of 1 shards could not be read" in said) == bool(expected)
    code, said = caption(tar, "--max_lost_shards", 1)
    assert code == 0 and "bytes of the shards, " in said
    (share,) = re.findall(r"bytes of the shards, ([0-9.]+)%, could not be read", said)
    assert 100 * covered <= float(share) < 100 * covered + 8


def test_a_large_shard_that_is_lost_counts_by_its_bytes(tmp_path: Path, caption: Run) -> None:
    (tmp_path / "bad.tar").write_bytes(b"no tar " * 9_000)
    good = [tar_of_pictures(tmp_path / f"good{i}.tar", 1) for i in range(3)]
    code, said = caption(tmp_path / "bad.tar", *good, "--max_lost_shards", 0.3)
    assert code == 1 and "1 of 4 shards could not be read, with 89.1% of all bytes" in said


def test_an_image_file_is_no_shard(tmp_path: Path, caption: Run) -> None:
    folder = pictures(tmp_path / "in", 3)
    (folder / "link.jpg").symlink_to("nowhere")
    (folder / "bad.jpg").write_bytes(b"")
    assert caption(folder)[0] == 0


def test_too_many_errors_are_shown_by_code_with_an_example(tmp_path: Path, caption: Run) -> None:
    folder = pictures(tmp_path / "in", 1)
    (folder / "bad0.jpg").write_bytes(b"")
    (folder / "bad1.jpg").write_bytes(b"")
    (folder / "bad2.jpg").write_bytes(b"no image")
    for _ in range(2):  # the second time from the output alone
        code, said = caption(folder)
        assert code == 1 and "3 of 4 rows are errors" in said
        assert "errors: empty_file 2, not_an_image 1; the first: bad0.jpg: empty_file: " in said
