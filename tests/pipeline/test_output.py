import json
from pathlib import Path

import pytest

from pipeline.errors import OutputError
from pipeline.ledger import Ledger
from pipeline.output import claim, finish, refuse_inside, sweep
from pipeline.storage import Folder

JOB = {"search": {"method": "beam", "beam_size": 5}, "format": "parquet"}


def test_a_new_folder_is_claimed_once(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "deep" / "out"))
    claim(folder, JOB)
    claim(folder, JOB)
    assert json.loads((tmp_path / "deep" / "out" / "_job.json").read_text()) == JOB


def test_a_claim_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "._job.json.tmp").write_text('{"sea')
    claim(Folder(str(tmp_path)), JOB)
    assert [path.name for path in tmp_path.iterdir()] == ["_job.json"]


def test_a_job_that_differs_is_told_in_what(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    claim(folder, JOB)
    with pytest.raises(OutputError, match=r"search\.beam_size was 5 and is 3; search\.seed was None and is 1"):
        claim(folder, {"search": {"method": "beam", "beam_size": 3, "seed": 1}, "format": "parquet"})


def test_a_damaged_claim_is_refused(tmp_path: Path) -> None:
    (tmp_path / "_job.json").write_text("{")
    with pytest.raises(OutputError, match=r"_job\.json is damaged"):
        claim(Folder(str(tmp_path)), JOB)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for name in ("file", "file/below"):
        with pytest.raises(OutputError, match="cannot be a folder"):
            claim(Folder(str(tmp_path / name)), JOB)


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
        refuse_inside(output, [given])


def test_an_output_beside_its_input_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    refuse_inside(str(tmp_path / "in-captions"), [str(tmp_path / "in"), str(tmp_path / "gone")])
    refuse_inside("s3://bucket/in-captions", ["s3://bucket/in"])
    refuse_inside(str(tmp_path / "in" / "out"), ["s3://bucket/in"])


def test_what_no_record_names_is_swept_away(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    garbage = ["part-1.parquet", ".part-2.parquet.tmp", "_commits/.part-3.commit.tmp"]
    kept = ["_job.json", "_exports/vis.json", "notes.txt"]
    for name in garbage + kept:
        folder.write(name, b"{}")
    sweep(folder, Ledger())
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == sorted(kept)


def test_the_manifest_of_nothing_is_a_manifest(tmp_path: Path) -> None:
    manifest = finish(Folder(str(tmp_path)), Ledger(), job=JOB, run={"run": {"rows": 0}})
    assert json.loads((tmp_path / "_manifest.json").read_text()) == manifest
    assert manifest["totals"] == {"rows": 0, "captions": 0, "errors": 0, "shards": 0}
    assert manifest["files"] == {}
