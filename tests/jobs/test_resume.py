"""Resuming: the work that a second run does, and the changes that it refuses."""

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from conftest import (
    Run,
    assert_same,
    commit_records,
    jpeg,
    pictures,
    replace_keeping_size_and_time,
    rows_of,
    tar_bytes,
    tar_of_pictures,
)

import jobs.caption
from pipeline.output import epochs, lease
from pipeline.output.writer import PartWriter
from pipeline.storage.folder import Folder


def test_what_is_finished_is_not_opened_again(tmp_path: Path, caption: Run) -> None:
    folder = pictures(tmp_path / "in", 2)
    tar = tar_of_pictures(folder / "s.tar", 3)
    assert caption(folder)[0] == 0
    rows = rows_of(tmp_path / "out")
    for path in folder.iterdir():
        replace_keeping_size_and_time(path, bytes(path.stat().st_size))
    code, said = caption(folder)
    assert code == 0 and "this run 0 rows" in said
    assert tar.read_bytes().count(0) == tar.stat().st_size
    assert rows_of(tmp_path / "out") == rows


@pytest.mark.parametrize("with_part", [False, True])
def test_only_what_is_missing_is_done_again(with_part: bool, tmp_path: Path, caption: Run) -> None:
    inputs = [pictures(tmp_path / "in", 3), tar_of_pictures(tmp_path / "s.tar", 4)]
    cuts = ("--rows_per_file", 2, "--batch_size", 2)
    assert caption(*inputs, *cuts)[0] == 0
    rows = rows_of(tmp_path / "out")
    for record in commit_records(tmp_path / "out"):
        part = json.loads(record.read_text())
        record.unlink()
        if with_part:
            (tmp_path / "out" / part["file"]).unlink()
        code, said = caption(*inputs, *cuts)
        assert code == 0 and f"this run {part['rows']} rows" in said
        assert_same(rows_of(tmp_path / "out"), rows)
        assert len(list((tmp_path / "out").glob("part-*"))) == len(commit_records(tmp_path / "out")) == 4


def test_a_part_that_somebody_took_away_is_missed(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    folder = pictures(tmp_path / "in", 2)
    assert caption(folder)[0] == 0
    (part,) = (tmp_path / "out").glob("part-*")
    part.unlink()
    code, said = caption(folder)
    assert code == 2 and f"{part} is gone" in said
    (record,) = commit_records(tmp_path / "out")
    assert f"delete _commits/{record.name}" in said
    record.unlink()
    assert caption(folder)[0] == 0
    assert shardtalk("verify", tmp_path / "out", folder)[0] == 0


def test_a_second_driver_on_the_same_output_is_refused(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    folder = pictures(tmp_path / "in", 2)
    assert caption(folder)[0] == 0
    (folder / "2.jpg").write_bytes(jpeg(2))
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*") if "_epochs" not in path.parts}
    with lease.hold(Folder(str(tmp_path / "out"))):
        code, said = caption(folder)
        assert code == 2 and "is being written by process" in said and said.count("\n") == 1
    assert {
        path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*") if "_epochs" not in path.parts
    } == before
    assert caption(folder)[0] == 0
    assert shardtalk("verify", tmp_path / "out", folder)[0] == 0


def test_a_driver_that_lost_its_lease_commits_nothing(
    tmp_path: Path, caption: Run, shardtalk: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, stolen = pictures(tmp_path / "in", 2), lease.Owner("other", "another-host", "", 7, "", "2026-01-01")
    write = PartWriter.write

    def steal(part_writer: PartWriter, rows: pa.Table) -> None:
        (tmp_path / "out" / lease.LEASE).write_text(json.dumps(asdict(stolen) | {"renewals": 0}))
        epochs.claim(Folder(str(tmp_path / "out")), "other")
        write(part_writer, rows)

    with monkeypatch.context() as patch:
        patch.setattr(PartWriter, "write", steal)
        code, said = caption(folder)
    assert code == 2 and "was taken over by process 7 on another-host" in said
    assert not (tmp_path / "out" / "_commits").exists() and not list((tmp_path / "out").glob("part-*"))
    (tmp_path / "out" / lease.LEASE).unlink()
    assert caption(folder)[0] == 0
    assert shardtalk("verify", tmp_path / "out", folder)[0] == 0


def test_what_such_a_driver_committed_after_all_is_removed(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    """A driver may pause between confirming the lease and committing, while another driver finishes."""
    folder, out = pictures(tmp_path / "in", 2), tmp_path / "out"
    assert caption(folder, "--rows_per_file", 1, "--batch_size", 1)[0] == 0
    late = {path: path.read_bytes() for path in out.rglob("part-*")}
    for path in [*late, out / "_manifest.json"]:
        path.unlink()

    def wake_up(*_: object) -> None:
        for path, data in late.items():
            path.write_bytes(data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs.caption, "find_failures", lambda *_, **__: wake_up() or False)
        assert caption(folder, "--rows_per_file", 2)[0] == 0
    assert not any(path.exists() for path in late)
    assert shardtalk("verify", out, folder)[0] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_waits_for_no_more_rows(
    number: signal.Signals, tmp_path: Path, caption: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, whole, closed = pictures(tmp_path / "in", 4), jobs.caption.caption_spans, []
    usual = signal.getsignal(number)

    def stuck(*arguments: Any) -> Iterator[pa.Table]:
        try:
            yield next(whole(*arguments))
            threading.Timer(0.1, os.kill, (os.getpid(), number)).start()
            threading.Event().wait(60)
        finally:
            closed.append(True)

    with monkeypatch.context() as patch:
        patch.setattr(jobs.caption, "caption_spans", stuck)
        code, said = caption(folder, "--batch_size", 3)
    assert code == 3 and "3 rows are committed" in said and closed
    assert signal.getsignal(number) == usual
    assert caption(folder)[0] == 0
    assert len(rows_of(tmp_path / "out")) == 4


def test_a_half_done_tar_goes_on_from_its_byte_offset(tmp_path: Path, caption: Run) -> None:
    images = {f"k{i}.jpg": jpeg(i) for i in range(5)}
    tar = tmp_path / "s.tar"
    tar.write_bytes(tar_bytes(images))
    assert caption(tar, "--rows_per_file", 1, "--batch_size", 1)[0] == 0
    rows = rows_of(tmp_path / "out")
    for record in commit_records(tmp_path / "out"):
        if json.loads(record.read_text())["intervals"][0][1] >= 3:
            record.unlink()
    blank = {name: bytes(len(data)) if name < "k3" else data for name, data in images.items()}
    replace_keeping_size_and_time(tar, tar_bytes(blank))
    code, said = caption(tar)
    assert code == 0 and "this run 2 rows" in said
    assert_same(rows_of(tmp_path / "out"), rows)


def test_new_inputs_join_the_old(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    folder = pictures(tmp_path / "in", 2)
    assert caption(folder)[0] == 0
    (folder / "new.jpg").write_bytes(jpeg(9))
    code, said = caption(folder)
    assert code == 0 and "this run 1 rows" in said
    assert [row["image_id"] for row in rows_of(tmp_path / "out")] == ["0.jpg", "1.jpg", "new.jpg"]
    assert shardtalk("verify", tmp_path / "out", folder)[0] == 0


@pytest.mark.parametrize("name", ["in/1.jpg", "in/s.tar"])
def test_a_changed_shard_is_refused(name: str, tmp_path: Path, caption: Run) -> None:
    folder = pictures(tmp_path / "in", 2)
    tar_of_pictures(folder / "s.tar", 2)
    assert caption(folder)[0] == 0
    rows = rows_of(tmp_path / "out")
    os.utime(tmp_path / name, (1, 1))
    code, said = caption(folder)
    assert code == 2 and said.count("\n") == 1 and name in said and "has changed" in said
    assert rows_of(tmp_path / "out") == rows


def test_another_job_on_the_same_output_is_refused(tmp_path: Path, captioner: Path, caption: Run) -> None:
    other = shutil.copytree(captioner, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["preprocessing"]["resize_size"] = 70
    (other / "config.json").write_text(json.dumps(config))
    folder = pictures(tmp_path / "in", 2)
    assert caption(folder)[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*") if "_epochs" not in path.parts}
    changes: dict[str, tuple[Any, ...]] = {
        "captioner.sha256": ("--captioner", other),
        "search.beam_size was 2 and is 3": ("--search.beam_size", 3),
        "dtype": ("--dtype", "float32"),
        "format was 'parquet' and is 'jsonl'": ("--format", "jsonl"),
    }
    for difference, options in changes.items():
        code, said = caption(folder, *options)
        assert code == 2 and said.count("\n") == 1 and difference in said
    assert {
        path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*") if "_epochs" not in path.parts
    } == before


def test_scores_and_provenance_do_not_make_another_captioner(tmp_path: Path, captioner: Path, caption: Run) -> None:
    folder = pictures(tmp_path / "in", 1)
    scored = shutil.copytree(captioner, tmp_path / "scored" / captioner.name)
    config = json.loads((scored / "config.json").read_text())
    (scored / "config.json").write_text(json.dumps(config | {"scores": {"CIDEr": 1.5}}))
    assert caption(folder)[0] == 0
    assert caption(folder, "--captioner", scored)[0] == 0


def test_a_damaged_record_is_refused_by_name(tmp_path: Path, caption: Run) -> None:
    folder = pictures(tmp_path / "in", 2)
    assert caption(folder)[0] == 0
    (record,) = commit_records(tmp_path / "out")
    record.write_bytes(record.read_bytes()[:-9])
    code, said = caption(folder)
    assert code == 2 and record.name in said and "remove it" in said
    record.unlink()
    assert caption(folder)[0] == 0


def test_an_output_of_the_old_rules_is_refused(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    tar, job = tar_of_pictures(tmp_path / "s.tar", 2), tmp_path / "out" / "_job.json"
    assert caption(tar)[0] == 0
    job.write_text(json.dumps({key: value for key, value in json.loads(job.read_text()).items() if key != "reading"}))
    shutil.rmtree(tmp_path / "out" / "_epochs")  # of which that version knew nothing
    for code, said in (caption(tar), shardtalk("verify", tmp_path / "out", tar)):
        assert code == 2 and "other rules of what is a row" in said and said.count("\n") == 1
    assert shardtalk("verify", tmp_path / "out")[0] == 0


def test_a_sample_of_several_images_may_be_interrupted_anywhere(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    names = ["0.left.jpg", "0.right.jpg", "0.txt", "1.left.jpg", "1.right.jpg", "0.left.jpg"]
    tar = tmp_path / "s.tar"
    tar.write_bytes(tar_bytes([(name, jpeg(i)) for i, name in enumerate(names)]))
    job = (tar, "--rows_per_file", 1, "--batch_size", 1, "--siblings", "txt")
    assert caption(*job)[0] == 0
    rows = rows_of(tmp_path / "out")
    assert [row["image_id"] for row in rows] == ["0.left", "0.right", "1.left", "1.right", "0"]
    for record in commit_records(tmp_path / "out"):
        record.unlink()
        assert caption(*job)[0] == 0
        assert_same(rows_of(tmp_path / "out"), rows)
    assert shardtalk("verify", tmp_path / "out", tar)[0] == 0


def test_image_members_are_part_of_the_job(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    tar = tmp_path / "s.tar"
    tar.write_bytes(tar_bytes({"0.left.jpg": jpeg(0), "0.right.jpg": jpeg(1), "1.txt": b"x", "._1.jpg": b"x"}))
    code, said = caption(tar, "--image_members", "right.jpg")
    assert code == 0 and "ignored 2 other files inside shards: hidden 1, .txt 1" in said
    assert [row["image_id"] for row in rows_of(tmp_path / "out")] == ["0"]
    assert shardtalk("verify", tmp_path / "out", tar)[0] == 0
    assert "1 images are no longer found" not in shardtalk("gallery", tmp_path / "out")[1]
    code, said = caption(tar)
    assert code == 2 and "reading.image_members was ['right.jpg'] and is []" in said


def test_an_output_under_the_old_names_of_options_is_gone_on_with(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    folder, output = pictures(tmp_path / "in", 2), tmp_path / "out"
    assert caption(folder)[0] == 0
    for path in [output / "_job.json", output / "_manifest.json", *(output / "_epochs").iterdir()]:
        path.write_text(path.read_text().replace('"num_beam_groups"', '"groups"').replace("_ngram_size", "_ngram"))
    for new in (0, 1):
        code, said = caption(folder)
        assert code == 0 and f"this run {new} rows" in said
        assert shardtalk("verify", output, folder)[0] == 0
        (folder / "new.jpg").write_bytes(jpeg(7))
