"""A refused command leaves the output unclaimed."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import Run, pictures, rows_of

from pipeline.output import epochs
from pipeline.output.lease import LEASE, Owner
from pipeline.storage.folder import Folder


@pytest.mark.parametrize("option", [("--device", "cuda:99"), ("--device", "nonsense"), ("--dtype", "int3")])
def test_a_device_that_is_not_there_claims_nothing(option: tuple[str, str], tmp_path: Path, caption: Run) -> None:
    folder = pictures(tmp_path / "in", 2)
    code, said = caption(folder, *option)
    assert code == 2 and said.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert caption(folder, "--search.beam_size", 3)[0] == 0


def cut(captioner: Path) -> None:
    weights = captioner / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def of_other_words(captioner: Path) -> None:
    (captioner / "vocabulary.json").write_text(json.dumps({"words": ["a"]}))


def gone(captioner: Path) -> None:
    shutil.rmtree(captioner)


@pytest.mark.parametrize("damage", [cut, of_other_words, gone])
def test_a_captioner_that_is_not_whole_claims_nothing(
    damage: object, tmp_path: Path, captioner: Path, caption: Run
) -> None:
    folder, copy = pictures(tmp_path / "in", 2), shutil.copytree(captioner, tmp_path / "copy" / captioner.name)
    damage(copy)  # type: ignore[operator]
    code, said = caption(folder, "--captioner", copy)
    assert code == 2 and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_inputs_that_are_not_there_claim_nothing(tmp_path: Path, caption: Run) -> None:
    assert caption(tmp_path / "nothing")[0] == 2
    assert not (tmp_path / "out").exists()


def test_an_output_without_rows_is_claimed_anew(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    folder, out = pictures(tmp_path / "in", 2), tmp_path / "out"
    out.mkdir()
    (out / "_job.json").write_text('{"captioner": "another"}')
    (out / "_plan.json").write_text('{"files": 1, "bytes": 3}')
    assert caption(folder, "--search.beam_size", 3)[0] == 0
    assert json.loads((out / "_job.json").read_text())["search"]["beam_size"] == 3
    assert shardtalk("verify", out, folder)[0] == 0


def test_a_claim_that_a_slow_driver_wrote_late_changes_no_job(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    folder, out = pictures(tmp_path / "in", 2), tmp_path / "out"
    assert caption(folder)[0] == 0
    (out / "_job.json").write_text('{"captioner": "another"}')
    code, said = caption(folder)
    assert code == 0 and "this run 0 rows" in said
    assert json.loads((out / "_job.json").read_text())["captioner"]["name"] == "tiny"


def test_records_that_came_late_are_named_and_swept(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    folder, out = pictures(tmp_path / "in", 3), tmp_path / "out"
    assert caption(folder, "--rows_per_file", 1, "--batch_size", 1)[0] == 0
    late = {path: path.read_bytes() for path in out.rglob("part-*")}
    manifest = (out / "_manifest.json").read_bytes()
    for path in [*late, out / "_manifest.json"]:
        path.unlink()
    assert caption(folder)[0] == 0
    rows = rows_of(out)
    for path, data in [*late.items(), (out / "_manifest.json", manifest)]:
        path.write_bytes(data)
    assert rows_of(out) == rows
    code, said = shardtalk("verify", out, folder)
    assert code == 1 and said.count("by a driver that had lost the output") == 3
    assert "complete" not in shardtalk("status", out)[1]
    code, said = caption(folder)
    assert code == 0 and "this run 0 rows" in said
    assert rows_of(out) == rows and not any(path.exists() for path in late)
    assert shardtalk("verify", out, folder)[0] == 0


def test_a_torn_lease_needs_nobody(tmp_path: Path, caption: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pictures(tmp_path / "in", 2)
    assert caption(folder)[0] == 0
    (tmp_path / "out" / LEASE).write_bytes(b"")
    monkeypatch.setattr("pipeline.output.lease.EXPIRY_S", 0.0)
    assert caption(folder)[0] == 0
    assert not (tmp_path / "out" / LEASE).exists()


def test_a_driver_that_died_after_its_claim_costs_nothing(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    folder, out = pictures(tmp_path / "in", 2), tmp_path / "out"
    assert caption(folder)[0] == 0
    rows = rows_of(out)
    epochs.claim(Folder(str(out)), Owner.me().id)
    assert rows_of(out) == rows and shardtalk("verify", out, folder)[0] == 0
    assert caption(folder)[0] == 0
    assert rows_of(out) == rows
