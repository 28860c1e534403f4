"""`shardtalk caption` as a user sees it: its output, its checks and its messages."""

import json
import re
from pathlib import Path

import duckdb
import pandas
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest
from conftest import (
    FORMATS,
    Run,
    assert_same,
    codes,
    commit_records,
    jpeg,
    pictures,
    rows_of,
    tar_bytes,
    tar_of_pictures,
)

import jobs.caption


def test_the_manifest_says_what_was_done(tmp_path: Path, caption: Run) -> None:
    folder = pictures(tmp_path / "in", 3)
    (folder / "bad.png").write_bytes(b"")
    (folder / "notes.txt").write_text("not taken for an image")
    code, said = caption(folder, "--rows_per_file", 2, "--batch_size", 2)
    assert code == 0
    for part in ("3 captions and 1 errors", "empty_file 1", "ignored 1 other files", ".txt 1"):
        assert part in said
    manifest = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    assert manifest["totals"] == {"rows": 4, "captions": 3, "errors": 1, "shards": 4}
    assert manifest["errors"] == {"empty_file": 1}
    assert manifest["search"]["beam_size"] == 2
    assert manifest["device"] == "cpu" and "images/s on cpu" in said
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
    cuts = ("--rows_per_file", 1 if several else 100, "--batch_size", 1)
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
    cuts = ("--rows_per_file", 1 if several else 100, "--batch_size", 1)
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


def test_parquet_files_are_captioned_as_the_images_in_them(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    folder = pictures(tmp_path / "in", 5)
    assert caption(folder, output=tmp_path / "one by one")[0] == 0
    expected = {row["image_id"]: row["caption"] for row in rows_of(tmp_path / "one by one")}
    images = [{"bytes": (folder / f"{i}.jpg").read_bytes(), "path": f"{i}.jpg"} for i in range(5)]
    images[2:2] = [{"bytes": None, "path": "null.jpg"}, {"bytes": b"no", "path": "bad.jpg"}]
    (tmp_path / "tables").mkdir()
    pyarrow.parquet.write_table(pa.table({"image": images}), tmp_path / "tables" / "t.parquet", row_group_size=2)
    assert caption(tmp_path / "tables", "--rows_per_file", 2, "--batch_size", 2)[0] == 0
    rows = rows_of(tmp_path / "out")
    assert [row["index"] for row in rows] == list(range(7))
    assert {row["image_id"]: row["caption"] for row in rows if row["caption"]} == expected
    assert codes(tmp_path / "out")["null.jpg"] == "unreadable" and codes(tmp_path / "out")["bad.jpg"] == "not_an_image"
    assert shardtalk("verify", tmp_path / "out", tmp_path / "tables")[0] == 0
    commit_records(tmp_path / "out")[1].unlink()
    assert caption(tmp_path / "tables", "--rows_per_file", 2, "--batch_size", 2)[0] == 0
    assert_same(rows_of(tmp_path / "out"), rows)
    assert shardtalk("verify", tmp_path / "out", tmp_path / "tables")[0] == 0


def test_parquet_files_that_tell_of_images_are_ignored(tmp_path: Path, caption: Run) -> None:
    folder = pictures(tmp_path / "in", 1)
    pyarrow.parquet.write_table(pa.table({"text": ["a"]}), folder / "about.parquet")
    code, said = caption(folder)
    assert code == 0 and "ignored 1 other files: Parquet without a column of images, beside images 1" in said
    assert codes(tmp_path / "out") == {"0.jpg": None}


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
    code, said = caption(folder, "--batch_size", 1)
    assert code == 1 and "4 of 7 rows are errors" in said
    assert len(rows_of(tmp_path / "out")) == 7
    code, said = caption(folder, "--max_error_rate", 1)
    assert code == 0 and "this run 26 rows" in said


def test_a_small_rotten_job_is_finished_before_it_fails(tmp_path: Path, caption: Run) -> None:
    assert caption(with_errors(tmp_path / "in", 1, 5), "--batch_size", 1)[0] == 1
    assert len(rows_of(tmp_path / "out")) == 6


def test_a_log_gets_a_line_now_and_then(tmp_path: Path, caption: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.console.progress.LOG_EVERY_S", 0.0)
    code, said = caption(pictures(tmp_path / "in", 3), "--batch_size", 2)
    assert code == 0
    lines = said.splitlines()[1:3]
    assert [line.partition(";")[0] for line in lines] == [
        "shardtalk caption: 2 of 3 images (67%), 0 errors",
        "shardtalk caption: 3 of 3 images (100%), 0 errors",
    ]
    assert lines[1].endswith("; 0:00:00 left")


def test_a_log_tells_how_much_of_a_tar_is_committed(
    tmp_path: Path, caption: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.console.progress.LOG_EVERY_S", 0.0)
    (tmp_path / "s.tar").write_bytes(tar_bytes({f"{i}.jpg": jpeg(i) for i in range(3)}))
    code, said = caption(tmp_path / "s.tar", "--batch_size", 1, "--rows_per_file", 1)
    assert code == 0
    found = re.findall(r"caption: (\d) images, (\d+)% of the bytes committed, 0 errors; .* left$", said, re.MULTILINE)
    assert [images for images, _ in found] == ["1", "2", "3"]
    assert 0 < int(found[0][1]) < int(found[1][1]) < int(found[2][1]) <= 100


def test_a_job_says_first_what_it_found(tmp_path: Path, caption: Run, captioner: Path) -> None:
    folder, others = pictures(tmp_path / "in", 3), pictures(tmp_path / "other", 1)
    (others / "0.jpg").rename(others / "9.jpg")
    (tmp_path / "s.tar").write_bytes(tar_bytes({"a.jpg": jpeg(1)}))
    ends = f"; captioner {captioner}; device cpu; local runner"
    for inputs, found in (
        ([folder], "3 images in 1 folder"),
        ([folder, others], "4 images in 2 folders"),
        ([folder / "0.jpg", tmp_path / "s.tar"], "1 image, 1 tar"),
    ):
        code, said = caption(*inputs, output=tmp_path / str(len(found)))
        assert code == 0 and said.splitlines()[0] == f"shardtalk caption: {found}{ends}"
