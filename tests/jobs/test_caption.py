"""The job as a user sees it: what it writes, what it does again, what it refuses."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb
import pandas
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest
from conftest import (
    Run,
    assert_same,
    codes,
    jpeg,
    pictures,
    replace_keeping_size_and_time,
    rows_of,
    tar_bytes,
    tar_of_pictures,
)

import jobs.caption
from configs.caption import SearchConfig
from model.search import Search
from pipeline import lease
from pipeline.sink import Sink
from pipeline.storage import Folder

FORMATS = ("parquet", "jsonl")


def records(output: Path) -> list[Path]:
    return sorted((output / "_commits").iterdir())


def test_search_options_are_the_searchs_own() -> None:
    assert asdict(SearchConfig()) == asdict(Search())


def test_the_manifest_says_what_was_done(tmp_path: Path, caption: Run) -> None:
    folder = pictures(tmp_path / "in", 3)
    (folder / "bad.png").write_bytes(b"")
    (folder / "notes.txt").write_text("not taken for an image")
    code, said = caption(folder, "--fragment_rows", 2, "--batch_images", 2)
    assert code == 0
    for part in ("3 captions and 1 errors", "empty_file 1", "ignored 1 other files", ".txt 1"):
        assert part in said
    manifest = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    assert manifest["totals"] == {"rows": 4, "captions": 3, "errors": 1, "shards": 4}
    assert manifest["errors"] == {"empty_file": 1}
    assert manifest["search"]["beam_size"] == 2
    assert sorted(manifest["files"]) == sorted(path.name for path in (tmp_path / "out").glob("part-*"))


def test_rows_say_where_they_come_from(tmp_path: Path, caption: Run) -> None:
    (pictures(tmp_path / "in", 1) / "deep").mkdir()
    tar = tar_of_pictures(tmp_path / "in" / "deep" / "s.tar", 2)
    assert caption(tmp_path / "in", "--search.num_candidates", 2)[0] == 0
    rows = rows_of(tmp_path / "out")
    assert [(row["image_id"], row["shard"], row["index"]) for row in rows] == [
        ("0.jpg", str(tmp_path / "in" / "0.jpg"), 0),
        ("k0", str(tar), 0),
        ("k1", str(tar), 1),
    ]
    for row in rows:
        assert row["candidates"][0] == {"caption": row["caption"], "log_prob": row["log_prob"]}
        assert row["candidates"][1]["log_prob"] < row["log_prob"] < 0
        assert row["num_tokens"] == len(row["caption"].split()) + 1


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("form", FORMATS)
def test_datasets_opens_the_output(
    form: str, several: bool, tmp_path: Path, caption: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    datasets = pytest.importorskip("datasets")
    folder = pictures(tmp_path / "in", 5)
    (folder / "a.jpg").write_bytes(b"")  # its columns are all null, and come first
    cuts = ("--fragment_rows", 1 if several else 100, "--batch_images", 1)
    assert caption(folder, *cuts, "--format", form, "--vis_json", True, "--coco_json", True)[0] == 0
    found = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert list(found) == ["train"]
    assert sorted(found["train"]["image_id"]) == sorted(row["image_id"] for row in rows_of(tmp_path / "out"))
    assert set(found["train"]["caption"]) == {row["caption"] for row in rows_of(tmp_path / "out")}
    assert found["train"].column_names == list(rows_of(tmp_path / "out")[0])


@pytest.mark.parametrize("several", [False, True])
def test_parquet_readers_open_the_output(several: bool, tmp_path: Path, caption: Run) -> None:
    folder = pictures(tmp_path / "in", 3)
    (folder / "a.jpg").write_bytes(b"")
    cuts = ("--fragment_rows", 1 if several else 100, "--batch_images", 1)
    assert caption(folder, *cuts, "--vis_json", True)[0] == 0
    out = tmp_path / "out"
    expected = {(row["image_id"], row["caption"]) for row in rows_of(out)}
    frame = pandas.read_parquet(out)
    assert set(frame["image_id"]) == {image_id for image_id, _ in expected}
    assert set(frame["caption"].dropna()) == {caption for _, caption in expected if caption is not None}
    table = pyarrow.dataset.dataset(out).to_table(columns=["image_id", "caption"])
    assert {tuple(row.values()) for row in table.to_pylist()} == expected
    sql = f"select image_id, caption from read_parquet('{out}/*.parquet')"
    assert set(duckdb.sql(sql).fetchall()) == expected


def test_jsonl_readers_open_the_output(tmp_path: Path, caption: Run) -> None:
    assert caption(pictures(tmp_path / "in", 3), "--format", "jsonl")[0] == 0
    (part,) = (tmp_path / "out").glob("part-*.jsonl")
    assert [json.loads(line) for line in part.read_text().splitlines()] == rows_of(tmp_path / "out")
    assert list(pandas.read_json(part, lines=True)["image_id"]) == ["0.jpg", "1.jpg", "2.jpg"]
    assert len(duckdb.sql(f"select caption from read_json('{tmp_path}/out/*.jsonl')").fetchall()) == 3


def test_exports_hold_the_captions(tmp_path: Path, caption: Run) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    names = ["COCO_val2014_000000391895.jpg", "007.jpg", "x7.jpg"]
    for i, name in enumerate(names):
        (folder / name).write_bytes(jpeg(i))
    (folder / "8.jpg").write_bytes(b"")
    assert caption(folder, "--vis_json", True, "--coco_json", True)[0] == 0
    captions = {row["image_id"]: row["caption"] for row in rows_of(tmp_path / "out")}
    vis, coco = (json.loads((tmp_path / "out" / "_exports" / f"{form}.json").read_text()) for form in ("vis", "coco"))
    assert sorted(vis, key=lambda entry: names.index(entry["image_id"])) == [
        {"image_id": name, "caption": captions[name], "file_name": str(folder / name)} for name in names
    ]
    assert {entry["image_id"]: entry["caption"] for entry in coco} == {
        number: captions[name] for number, name in zip([391895, 7, "x7.jpg"], names, strict=True)
    }


def test_exports_without_a_caption_are_empty_lists(tmp_path: Path, caption: Run) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "8.jpg").write_bytes(b"")
    assert caption(tmp_path / "in", "--coco_json", True, "--max_error_rate", 1)[0] == 0
    assert json.loads((tmp_path / "out" / "_exports" / "coco.json").read_text()) == []


def test_exports_can_be_asked_for_later(tmp_path: Path, caption: Run) -> None:
    folder = pictures(tmp_path / "in", 2)
    assert caption(folder)[0] == 0
    assert not (tmp_path / "out" / "_exports").exists()
    assert caption(folder, "--coco_json", True)[0] == 0
    coco = json.loads((tmp_path / "out" / "_exports" / "coco.json").read_text())
    assert sorted(entry["image_id"] for entry in coco) == [0, 1]


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
    cuts = ("--fragment_rows", 2, "--batch_images", 2)
    assert caption(*inputs, *cuts)[0] == 0
    rows = rows_of(tmp_path / "out")
    for record in records(tmp_path / "out"):
        part = json.loads(record.read_text())
        record.unlink()
        if with_part:
            (tmp_path / "out" / part["file"]).unlink()
        code, said = caption(*inputs, *cuts)
        assert code == 0 and f"this run {part['rows']} rows" in said
        assert_same(rows_of(tmp_path / "out"), rows)
        assert len(list((tmp_path / "out").glob("part-*"))) == len(records(tmp_path / "out")) == 4


def test_a_part_that_somebody_took_away_is_missed(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    folder = pictures(tmp_path / "in", 2)
    assert caption(folder)[0] == 0
    (part,) = (tmp_path / "out").glob("part-*")
    part.unlink()
    code, said = caption(folder)
    assert code == 2 and f"{part} is gone" in said
    (record,) = records(tmp_path / "out")
    assert f"delete _commits/{record.name}" in said
    record.unlink()
    assert caption(folder)[0] == 0
    assert shardtalk("verify", tmp_path / "out", folder)[0] == 0


def test_a_second_driver_on_the_same_output_is_refused(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    folder = pictures(tmp_path / "in", 2)
    assert caption(folder)[0] == 0
    (folder / "2.jpg").write_bytes(jpeg(2))
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    with lease.held(Folder(str(tmp_path / "out"))):
        code, said = caption(folder)
        assert code == 2 and "is being written by process" in said and said.count("\n") == 1
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    assert caption(folder)[0] == 0
    assert shardtalk("verify", tmp_path / "out", folder)[0] == 0


def test_a_driver_that_lost_its_lease_commits_nothing(
    tmp_path: Path, caption: Run, shardtalk: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, stolen = pictures(tmp_path / "in", 2), lease.Owner("other", "another-host", 7, "", "2026-01-01")
    write = Sink.write

    def steal(sink: Sink, rows: pa.Table) -> None:
        (tmp_path / "out" / lease.LEASE).write_text(json.dumps(asdict(stolen) | {"renewals": 0}))
        write(sink, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Sink, "write", steal)
        code, said = caption(folder)
    assert code == 2 and "was taken over by process 7 on another-host" in said
    assert not (tmp_path / "out" / "_commits").exists()
    (tmp_path / "out" / lease.LEASE).unlink()
    assert caption(folder)[0] == 0
    assert shardtalk("verify", tmp_path / "out", folder)[0] == 0


def test_what_such_a_driver_committed_after_all_is_removed(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    """It may stop between asking for the lease and committing, and wake up after another has done its work."""
    folder, out = pictures(tmp_path / "in", 2), tmp_path / "out"
    assert caption(folder, "--fragment_rows", 1, "--batch_images", 1)[0] == 0
    late = {path: path.read_bytes() for path in out.rglob("part-*")}
    for path in [*late, out / "_manifest.json"]:
        path.unlink()

    def wake_up(*_: object) -> None:
        for path, data in late.items():
            path.write_bytes(data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs.caption, "_judge", lambda *_, **__: wake_up() or 0)
        assert caption(folder, "--fragment_rows", 2)[0] == 0
    assert not any(path.exists() for path in late)
    assert shardtalk("verify", out, folder)[0] == 0


def test_a_half_done_tar_goes_on_from_its_byte_offset(tmp_path: Path, caption: Run) -> None:
    images = {f"k{i}.jpg": jpeg(i) for i in range(5)}
    tar = tmp_path / "s.tar"
    tar.write_bytes(tar_bytes(images))
    assert caption(tar, "--fragment_rows", 1, "--batch_images", 1)[0] == 0
    rows = rows_of(tmp_path / "out")
    for record in records(tmp_path / "out"):
        if json.loads(record.read_text())["intervals"][0][1] >= 3:
            record.unlink()
    blank = {name: bytes(len(data)) if name < "k3" else data for name, data in images.items()}
    replace_keeping_size_and_time(tar, tar_bytes(blank))
    code, said = caption(tar)
    assert code == 0 and "this run 2 rows" in said
    assert_same(rows_of(tmp_path / "out"), rows)


def test_parquet_files_are_captioned_as_the_images_in_them(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    folder = pictures(tmp_path / "in", 5)
    assert caption(folder, output=tmp_path / "one by one")[0] == 0
    expected = {row["image_id"]: row["caption"] for row in rows_of(tmp_path / "one by one")}
    images = [{"bytes": (folder / f"{i}.jpg").read_bytes(), "path": f"{i}.jpg"} for i in range(5)]
    images[2:2] = [{"bytes": None, "path": "null.jpg"}, {"bytes": b"no", "path": "bad.jpg"}]
    (tmp_path / "tables").mkdir()
    pyarrow.parquet.write_table(pa.table({"image": images}), tmp_path / "tables" / "t.parquet", row_group_size=2)
    assert caption(tmp_path / "tables", "--fragment_rows", 2, "--batch_images", 2)[0] == 0
    rows = rows_of(tmp_path / "out")
    assert [row["index"] for row in rows] == list(range(7))
    assert {row["image_id"]: row["caption"] for row in rows if row["caption"]} == expected
    assert codes(tmp_path / "out")["null.jpg"] == "no_image" and codes(tmp_path / "out")["bad.jpg"] == "not_an_image"
    assert shardtalk("verify", tmp_path / "out", tmp_path / "tables")[0] == 0
    records(tmp_path / "out")[1].unlink()
    assert caption(tmp_path / "tables", "--fragment_rows", 2, "--batch_images", 2)[0] == 0
    assert_same(rows_of(tmp_path / "out"), rows)
    assert shardtalk("verify", tmp_path / "out", tmp_path / "tables")[0] == 0


def test_parquet_files_beside_images_are_ignored(tmp_path: Path, caption: Run) -> None:
    folder = pictures(tmp_path / "in", 1)
    pyarrow.parquet.write_table(pa.table({"image": [b""]}), folder / "about.parquet")
    code, said = caption(folder)
    assert code == 0 and "ignored 1 other files: .parquet 1" in said
    assert codes(tmp_path / "out") == {"0.jpg": None}


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
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    changes: dict[str, tuple[Any, ...]] = {
        "captioner.sha256": ("--captioner", other),
        "search.beam_size was 2 and is 3": ("--search.beam_size", 3),
        "dtype": ("--dtype", "float32"),
        "format was 'parquet' and is 'jsonl'": ("--format", "jsonl"),
    }
    for difference, options in changes.items():
        code, said = caption(folder, *options)
        assert code == 2 and said.count("\n") == 1 and difference in said
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")} == before


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
    (record,) = records(tmp_path / "out")
    record.write_bytes(record.read_bytes()[:-9])
    code, said = caption(folder)
    assert code == 2 and record.name in said and "remove it" in said
    record.unlink()
    assert caption(folder)[0] == 0


def with_errors(folder: Path, good: int, bad: int) -> Path:
    pictures(folder, good)
    for i in range(bad):
        (folder / f"bad{i}.jpg").write_bytes(b"")
    return folder


def test_more_errors_than_allowed_fail_the_job(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    folder = with_errors(tmp_path / "in", 3, 1)
    code, said = caption(folder, "--max_error_rate", 0.24)
    assert code == 1 and "1 of 4 rows are errors" in said
    assert not (tmp_path / "out" / "_manifest.json").exists()
    assert shardtalk("verify", tmp_path / "out")[0] == 1
    code, said = caption(folder, "--max_error_rate", 0.25)  # at the bound
    assert code == 0 and "this run 0 rows" in said
    assert shardtalk("verify", tmp_path / "out", folder)[0] == 0


def test_a_rotten_job_is_stopped_early_and_can_go_on(
    tmp_path: Path, caption: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.caption, "EARLY_STOP_ROWS", 4)
    folder = with_errors(tmp_path / "in", 3, 0)  # they come first
    for i in range(30):
        (folder / f"9bad{i}.jpg").write_bytes(b"")
    code, said = caption(folder, "--batch_images", 1)
    assert code == 1 and "4 of 7 rows are errors" in said
    assert len(rows_of(tmp_path / "out")) == 7
    code, said = caption(folder, "--max_error_rate", 1)
    assert code == 0 and "this run 26 rows" in said


def test_a_small_rotten_job_is_finished_before_it_fails(tmp_path: Path, caption: Run) -> None:
    assert caption(with_errors(tmp_path / "in", 1, 5), "--batch_images", 1)[0] == 1
    assert len(rows_of(tmp_path / "out")) == 6
