"""Retrying rows whose error may be transient."""

import io
from pathlib import Path
from typing import Any

import pytest
from conftest import Run, assert_same, codes, jpeg, pictures, rows_of, tar_bytes, tar_of_pictures

from pipeline.errors import OutputError
from pipeline.output import retry_errors
from pipeline.output.commit_log import COMMITS, CommitLog
from pipeline.output.layout import MANIFEST, PART
from pipeline.output.lease import LEASE, acquire
from pipeline.schema import ErrorCode
from pipeline.shards import Shard
from pipeline.storage.folder import Folder
from pipeline.tar import rows


def with_broken_link(folder: Path) -> Path:
    pictures(folder, 3)
    (folder / "1.jpg").rename(folder.parent / "away.jpg")
    (folder / "1.jpg").symlink_to(folder.parent / "1.jpg")
    return folder


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_a_file_that_came_back_is_captioned(form: str, tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    folder = with_broken_link(tmp_path / "in")
    job = (folder, "--format", form)
    assert caption(*job)[0] == 0
    assert codes(tmp_path / "out") == {"0.jpg": None, "1.jpg": "unreadable", "2.jpg": None}
    (tmp_path / "away.jpg").rename(tmp_path / "1.jpg")
    code, said = caption(*job)
    assert code == 2 and "1.jpg has changed since it was captioned" in said and "--retry_errors" in said
    code, said = caption(*job, "--retry_errors", True)
    assert code == 0 and "1 rows with errors are tried again" in said and "3 captions and 0 errors" in said
    assert codes(tmp_path / "out") == {"0.jpg": None, "1.jpg": None, "2.jpg": None}
    assert shardtalk("verify", tmp_path / "out", folder)[0] == 0
    assert caption(*job, output=tmp_path / "afresh")[0] == 0
    assert_same(rows_of(tmp_path / "out"), rows_of(tmp_path / "afresh"))


def test_files_that_were_repaired_are_captioned(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    folder = pictures(tmp_path / "in", 2)
    (folder / "bad.jpg").write_bytes(b"no image")
    (folder / "cut.jpg").write_bytes(jpeg(7)[:100])
    (folder / "gone.jpg").write_bytes(b"")
    (folder / "s.tar").write_bytes(b"no tar " * 100)
    job = (folder, "--max_error_rate", 1)
    assert caption(*job)[0] == 0
    (folder / "cut.jpg").write_bytes(jpeg(7))
    (folder / "gone.jpg").unlink()
    tar_of_pictures(folder / "s.tar", 3)
    code, said = caption(*job)
    assert code == 2 and "--retry_errors if it was an error then" in said
    code, said = caption(*job, "--retry_errors", True)
    assert code == 0 and "2 rows with errors are tried again" in said
    now = {f"k{i}": None for i in range(3)} | {"0.jpg": None, "1.jpg": None, "cut.jpg": None}
    assert codes(tmp_path / "out") == now | {"bad.jpg": "not_an_image", "gone.jpg": "empty_file"}
    assert caption(*job)[0] == 0
    (folder / "gone.jpg").write_bytes(b"")
    (folder / "0.jpg").write_bytes(jpeg(9))  # was captioned
    code, said = caption(*job, "--retry_errors", True)
    assert code == 2 and "0.jpg has changed" in said


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
@pytest.mark.parametrize("before", [b"", tar_bytes({}), tar_bytes({"notes.txt": b"x", "0.jpg": b""})])
def test_a_tar_without_a_caption_is_read_again_when_it_was_filled(
    before: bytes, form: str, tmp_path: Path, caption: Run, shardtalk: Run
) -> None:
    folder = pictures(tmp_path / "in", 2)
    (folder / "s.tar").write_bytes(before)
    job = (folder, "--max_error_rate", 1, "--max_lost_shards", 1, "--format", form)
    assert caption(*job)[0] == 0
    tar_of_pictures(folder / "s.tar", 3)
    assert caption(*job)[0] == 2
    assert caption(*job, "--retry_errors", True)[0] == 0
    assert codes(tmp_path / "out") == dict.fromkeys(["k0", "k1", "k2", "0.jpg", "1.jpg"])
    assert shardtalk("verify", tmp_path / "out", folder)[0] == 0


def test_a_tar_with_a_caption_is_refused_when_it_changed(tmp_path: Path, caption: Run) -> None:
    tar = tmp_path / "s.tar"
    tar.write_bytes(tar_bytes({"a.jpg": b"no", "b.jpg": jpeg(1)}))
    job = (tar, "--max_error_rate", 1)
    assert caption(*job)[0] == 0
    before = rows_of(tmp_path / "out")
    tar_of_pictures(tar, 3)
    code, said = caption(*job, "--retry_errors", True)
    assert code == 2 and "s.tar has changed" in said
    assert rows_of(tmp_path / "out") == before


def test_what_still_fails_is_a_row_again(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    folder = with_broken_link(tmp_path / "in")
    assert caption(folder)[0] == 0
    before = rows_of(tmp_path / "out")
    assert caption(folder, "--retry_errors", True)[0] == 0
    assert rows_of(tmp_path / "out") == before
    assert shardtalk("verify", tmp_path / "out", folder)[0] == 0


def test_the_row_of_a_file_that_is_gone_stays(tmp_path: Path, caption: Run) -> None:
    folder = with_broken_link(tmp_path / "in")
    assert caption(folder)[0] == 0
    before = rows_of(tmp_path / "out")
    (folder / "1.jpg").unlink()
    code, said = caption(folder, "--retry_errors", True)
    assert code == 0 and "0 rows with errors are tried again" in said
    assert rows_of(tmp_path / "out") == before


def test_a_driver_that_lost_the_output_takes_nothing_back(tmp_path: Path, caption: Run) -> None:
    assert caption(with_broken_link(tmp_path / "in"))[0] == 0
    output = Folder(str(tmp_path / "out"))
    mine = acquire(output)
    output.remove(LEASE)
    acquire(output)
    with pytest.raises(OutputError, match="taken over"):
        retry_errors.uncommit_errors(output, CommitLog.load(output), [], mine)
    assert output.exists(MANIFEST)


def test_nothing_to_retry_changes_nothing(tmp_path: Path, caption: Run) -> None:
    folder = pictures(tmp_path / "in", 2)
    (folder / "bad.jpg").write_bytes(b"no")
    assert caption(folder)[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*") if "_epochs" not in path.parts}
    code, said = caption(folder, "--retry_errors", True)
    assert code == 0 and "0 rows with errors are tried again" in said
    after = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*") if "_epochs" not in path.parts}
    assert after == before


class Failing(io.BytesIO):
    """A file that cannot be read beyond a byte."""

    limit = 0

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() + max(0, size or 0) > self.limit:
            raise OSError(5, "Input/output error")
        return super().read(size)


def test_a_tar_goes_on_where_it_could_not_be_read(
    tmp_path: Path, caption: Run, shardtalk: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar = tmp_path / "s.tar"
    tar.write_bytes(tar_bytes({f"k{i}.jpg": jpeg(i) for i in range(6)}))

    def failing(shard: Shard, offset: int = 0) -> Any:
        file = Failing(tar.read_bytes())
        file.limit = tar.stat().st_size * 5 // 6
        file.seek(offset)
        return file

    with monkeypatch.context() as patch:
        patch.setattr(rows, "open_shard", failing)
        assert caption(tar)[0] == 0
    found = codes(tmp_path / "out")
    assert 2 <= len(found) < 6 and found["s.tar"] == "unreadable"
    assert caption(tar, "--retry_errors", True)[0] == 0
    assert codes(tmp_path / "out") == {f"k{i}": None for i in range(6)}
    assert shardtalk("verify", tmp_path / "out", tar)[0] == 0


@pytest.mark.parametrize("bad", [{0}, {3}, {5}, {6}, {2, 3}, {1, 3}, {0, 2, 4, 6}, set(range(7))])
def test_rows_in_the_middle_of_a_tar_leave_no_gap(
    bad: set[int], tmp_path: Path, caption: Run, shardtalk: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry_errors, "RETRYABLE", frozenset({ErrorCode.NOT_AN_IMAGE}))
    tar = tmp_path / "s.tar"
    tar.write_bytes(tar_bytes({f"k{i}.jpg": b"no" if i in bad else jpeg(i) for i in range(7)}))
    job = (tar, "--batch_size", 2, "--rows_per_file", 4, "--max_error_rate", 1)
    assert caption(*job)[0] == 0
    before = rows_of(tmp_path / "out")
    code, said = caption(*job, "--retry_errors", True)
    assert code == 0 and f"{len(bad)} rows with errors are tried again" in said
    assert_same(rows_of(tmp_path / "out"), before)
    assert shardtalk("verify", tmp_path / "out", tar)[0] == 0


def test_rows_of_a_tar_that_cannot_be_read_stay(
    tmp_path: Path, caption: Run, shardtalk: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar = tmp_path / "s.tar"
    tar.write_bytes(tar_bytes({f"k{i}.jpg": b"no" if i == 1 else jpeg(i) for i in range(3)}))
    assert caption(tar)[0] == 0
    before = rows_of(tmp_path / "out")

    def failing(shard: Shard, offset: int = 0, *, skim: bool = False) -> Any:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(retry_errors, "RETRYABLE", frozenset({ErrorCode.NOT_AN_IMAGE}))
        patch.setattr(rows, "open_shard", failing)
        code, said = caption(tar, "--retry_errors", True)
    assert code == 0 and "0 rows with errors are tried again" in said
    assert rows_of(tmp_path / "out") == before
    assert shardtalk("verify", tmp_path / "out", tar)[0] == 0


@pytest.mark.parametrize("removals", range(4))
def test_a_crash_while_rows_are_taken_back(
    removals: int, tmp_path: Path, caption: Run, shardtalk: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, remove = with_broken_link(tmp_path / "in"), Folder.remove
    assert caption(folder)[0] == 0
    (tmp_path / "away.jpg").rename(tmp_path / "1.jpg")
    left = iter(range(removals))

    def crash(self: Folder, name: str) -> None:
        assert not (name.startswith((COMMITS, PART)) and self.exists(MANIFEST))  # the output says that it is whole
        if next(left, None) is None:
            raise RuntimeError("the machine is gone")
        remove(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "remove", crash)
        with pytest.raises(RuntimeError):
            caption(folder, "--retry_errors", True)
    (tmp_path / "out" / "_lease.json").unlink(missing_ok=True)  # its owner, this process, lives
    assert caption(folder, "--retry_errors", True)[0] == 0
    assert codes(tmp_path / "out") == {"0.jpg": None, "1.jpg": None, "2.jpg": None}
    assert shardtalk("verify", tmp_path / "out", folder)[0] == 0
