import json
import os
from pathlib import Path

import pytest

from pipeline.errors import OutputError
from pipeline.output.cleanup import sweep
from pipeline.output.commit_log import Commit, CommitLog, RowRange
from pipeline.output.job_record import check_output_folder, check_outside_inputs, check_same_job, read_job, write_job
from pipeline.output.manifest import finish, is_finished
from pipeline.storage.folder import Folder

JOB = {"search": {"method": "beam", "beam_size": 5}, "format": "parquet"}
OTHER = {"search": {"method": "beam", "beam_size": 3, "seed": 1}, "format": "parquet"}


def committed() -> CommitLog:
    """Commits a row to the output."""
    commit_log = CommitLog()
    commit_log.add(Commit("part-1.parquet", 1, {}, "f", "k", [RowRange("s", 0, 1, 9, True)], {"s": "/s.tar"}, 0.0))
    return commit_log


def test_a_new_folder_is_claimed_once(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "deep" / "out"))
    for _ in range(2):
        check_output_folder(folder)
        write_job(folder, JOB)
    assert json.loads((tmp_path / "deep" / "out" / "_job.json").read_text()) == JOB


@pytest.mark.parametrize("name", ["._job.json.tmp", "_lease.json", "._lease.json-7f.tmp"])
def test_a_claim_that_was_cut_off_is_made_again(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text('{"sea')
    check_output_folder(Folder(str(tmp_path)))


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds other files, such as letter\.txt"):
        check_output_folder(Folder(str(tmp_path)))


def test_a_job_that_differs_is_told_in_what(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    write_job(folder, JOB)
    with pytest.raises(OutputError, match=r"search\.beam_size was 5 and is 3; search\.seed was None and is 1"):
        check_same_job(folder, committed(), OTHER)


def test_an_output_without_rows_is_anybodys(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    write_job(folder, JOB)
    check_same_job(folder, CommitLog(), OTHER)
    write_job(folder, OTHER)
    check_same_job(folder, committed(), OTHER)


@pytest.mark.parametrize("text", ["{", "", "3"])
def test_a_damaged_claim_is_refused_where_there_are_rows(text: str, tmp_path: Path) -> None:
    (tmp_path / "_job.json").write_text(text)
    folder = Folder(str(tmp_path))
    check_same_job(folder, CommitLog(), JOB)
    with pytest.raises(OutputError, match=r"_job\.json is damaged"):
        check_same_job(folder, committed(), JOB)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for name in ("file", "file/below"):
        with pytest.raises(OutputError, match="cannot be the output folder"):
            check_output_folder(Folder(str(tmp_path / name)))


def test_a_folder_that_is_not_to_be_written_into_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulates a read-only filesystem, as root may write to all other folders."""
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK | os.X_OK)
    with pytest.raises(OutputError, match="is not writable"):
        check_output_folder(Folder(str(tmp_path / "out")))


@pytest.mark.parametrize(
    ("output", "given"),
    [
        ("s3://bucket/in/out", "s3://bucket/in"),
        ("s3://bucket/in", "s3://bucket/in/"),
        ("s3://bucket/b/out", "s3://bucket/{a,b}"),
    ],
)
def test_a_remote_output_inside_its_input_is_refused(output: str, given: str) -> None:
    with pytest.raises(OutputError, match="inside the input"):
        check_outside_inputs(output, [given])


def test_an_output_beside_its_input_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    check_outside_inputs(str(tmp_path / "in-captions"), [str(tmp_path / "in"), str(tmp_path / "gone")])
    check_outside_inputs("s3://bucket/in-captions", ["s3://bucket/in"])
    check_outside_inputs(str(tmp_path / "in" / "out"), ["s3://bucket/in"])


def test_what_no_record_names_is_swept_away(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    garbage = ["part-1.parquet", ".part-2.parquet.tmp", "_commits/.part-3.commit.tmp", "_commits/part-4.commit"]
    garbage += ["._manifest.json.tmp", "._lease.json-7f.tmp", "..huggingface.yaml.tmp", "_epochs/.000001-7f.tmp"]
    kept = ["_job.json", "_exports/vis.json", "notes.txt", ".notes.tmp", "._lease.json.tmp"]
    for name in garbage + kept:
        folder.write(name, b"{}")
    sweep(folder, CommitLog(), confirm=lambda: None)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == sorted(kept)


def test_the_manifest_of_nothing_is_a_manifest(tmp_path: Path) -> None:
    manifest = finish(Folder(str(tmp_path)), CommitLog(), job=JOB, run={"run": {"rows": 0}}, confirm=lambda: None)
    assert json.loads((tmp_path / "_manifest.json").read_text()) == manifest
    assert manifest["totals"] == {"rows": 0, "captions": 0, "errors": 0, "shards": 0}
    assert manifest["files"] == {}


def test_a_driver_that_lost_the_output_deletes_nothing(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))

    def lost() -> None:
        folder.write("part-of-another.parquet", b"")  # after the list was made, so it is not on it
        raise OutputError("taken over")

    folder.write("part-1.parquet", b"")
    with pytest.raises(OutputError, match="taken over"):
        sweep(folder, CommitLog(), confirm=lost)
    assert folder.names() == ["part-1.parquet", "part-of-another.parquet"]


def test_a_manifest_of_other_commits_is_not_the_end(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    assert not is_finished(folder, CommitLog())
    finish(folder, CommitLog(), job=JOB, run={}, confirm=lambda: None)
    assert is_finished(folder, CommitLog()) and not is_finished(folder, committed())
    folder.write("_manifest.json", b"{")
    assert not is_finished(folder, CommitLog())


def test_a_manifest_that_another_driver_wrote_meanwhile_stays(tmp_path: Path) -> None:
    folder, manifest, written = Folder(str(tmp_path)), tmp_path / "_manifest.json", list[str]()

    def another() -> None:
        """Writes another driver's manifest whenever this driver confirms its lease."""
        written.append(f"another's, {len(written)}")
        manifest.write_text(written[-1])

    with pytest.raises(OutputError, match="another driver"):
        finish(folder, CommitLog(), job=JOB, run={}, confirm=another)
    assert manifest.read_text() == written[-1]


def test_a_job_of_an_earlier_version_is_the_same_under_the_new_names(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    write_job(folder, {"search": {"groups": 2, "length_normalization": 0.7, "beam_search": "standard"}})
    assert read_job(folder) == {"search": {"num_beam_groups": 2, "length_penalty": 0.7}}
