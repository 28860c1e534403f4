"""`shardtalk status` as a user sees it."""

import json
from pathlib import Path

import pytest
from conftest import Run, jpeg, pictures, tar_bytes

from pipeline.output import lease
from pipeline.storage.folder import Folder


def status(shardtalk: Run, output: Path) -> dict[str, object]:
    code, said = shardtalk("status", output, "--json", True)
    assert code == 0, said
    found: dict[str, object] = json.loads(said)
    return found


def test_a_finished_job_is_complete(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    folder = pictures(tmp_path / "in", 3)
    (folder / "bad.jpg").write_bytes(b"no")
    assert caption(folder)[0] == 0
    found, size = status(shardtalk, tmp_path / "out"), sum(file.stat().st_size for file in folder.iterdir())
    assert found["state"] == "complete" and found["driver"] == ""
    assert (found["rows"], found["errors"]) == (4, {"not_an_image": 1})
    assert (found["files"], found["total_files"], found["bytes"], found["total_bytes"]) == (4, 4, size, size)
    code, said = shardtalk("status", tmp_path / "out")
    assert code == 0 and said.splitlines()[:2] == ["complete", "4 rows, 1 of them errors (not_an_image 1)"]
    assert "100.0% of the bytes" in said


def test_a_half_done_job_says_what_is_left(
    tmp_path: Path, caption: Run, shardtalk: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar = tmp_path / "s.tar"
    tar.write_bytes(tar_bytes({f"k{i}.jpg": jpeg(i) for i in range(8)}))
    moments = iter(range(1000, 2000, 10))
    monkeypatch.setattr("pipeline.output.writer.time.time", lambda: next(moments))
    assert caption(tar, "--batch_size", 2, "--rows_per_file", 2)[0] == 0
    records = sorted(
        (tmp_path / "out" / "_commits").iterdir(), key=lambda file: json.loads(file.read_text())["committed"]
    )
    for path in (records[-1], tmp_path / "out" / "_manifest.json"):
        path.unlink()
    monkeypatch.setattr("pipeline.results.progress.time.time", lambda: 1100.0)
    with lease.hold(Folder(str(tmp_path / "out"))):
        found = status(shardtalk, tmp_path / "out")
    assert found["state"] == "running" and "process" in str(found["driver"])
    assert (found["rows"], found["files"], found["total_files"]) == (6, 0, 1)
    assert found["total_bytes"] == tar.stat().st_size
    assert found["share"] == pytest.approx(int(str(found["bytes"])) / tar.stat().st_size) and found["share"] < 1
    assert found["rows_per_s"] == pytest.approx(0.2)  # two rows every ten seconds
    left = tar.stat().st_size - int(str(found["bytes"]))
    assert found["seconds_left"] == pytest.approx(left / (int(str(found["bytes"])) / 6 * 0.2))
    assert status(shardtalk, tmp_path / "out")["state"] == "stopped"


def test_watching_ends_with_the_job(
    tmp_path: Path, caption: Run, shardtalk: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert caption(pictures(tmp_path / "in", 3), "--rows_per_file", 1)[0] == 0
    manifest = tmp_path / "out" / "_manifest.json"
    finished = manifest.read_bytes()
    manifest.unlink()
    waits = []

    def finish(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            manifest.write_bytes(finished)
            holder.__exit__(None, None, None)

    monkeypatch.setattr("jobs.status.time.sleep", finish)
    holder = lease.hold(Folder(str(tmp_path / "out")))
    holder.__enter__()
    code, said = shardtalk("status", tmp_path / "out", "--watch", "--json", "--interval_s", 7)
    assert code == 0 and waits == [7.0, 7.0]
    assert [json.loads(line)["state"] for line in said.splitlines()] == ["running", "running", "complete"]


def test_watching_ends_if_nobody_works(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    assert caption(pictures(tmp_path / "in", 2))[0] == 0
    (tmp_path / "out" / "_manifest.json").unlink()
    code, said = shardtalk("status", tmp_path / "out", "--watch")
    assert code == 1 and said.startswith("stopped\n2 rows") and "100.0% of the bytes" in said


def test_a_folder_of_something_else_is_refused(tmp_path: Path, shardtalk: Run) -> None:
    code, said = shardtalk("status", tmp_path)
    assert code == 2 and "no output of `shardtalk caption`" in said
