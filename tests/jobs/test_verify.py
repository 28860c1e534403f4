"""`shardtalk verify` names every problem of an output."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Run, jpeg, pictures, replace_keeping_size_and_time, tar_bytes, tar_of_pictures


@pytest.fixture
def inputs(tmp_path: Path) -> list[Path]:
    return [pictures(tmp_path / "in", 3), tar_of_pictures(tmp_path / "s.tar", 4)]


@pytest.fixture
def output(inputs: list[Path], caption: Run, tmp_path: Path) -> Path:
    """An output of four parts: 0.jpg 1.jpg, 2.jpg k0, k1 k2, k3."""
    assert caption(*inputs, "--rows_per_file", 2, "--batch_size", 1)[0] == 0
    return tmp_path / "out"


def record_of(output: Path, image_id: str) -> Path:
    """Returns the commit record of an image's part."""
    for record in (output / "_commits").iterdir():
        commit = json.loads(record.read_text())
        for shard, start, stop, _, _ in commit["intervals"]:
            path = commit["paths"][shard]
            if image_id in ([f"k{i}" for i in range(start, stop)] if path.endswith(".tar") else [Path(path).name]):
                return record
    raise LookupError(image_id)


def part_of(output: Path, image_id: str) -> Path:
    return output / json.loads(record_of(output, image_id).read_text())["file"]


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_whole_output_is_proven(output: Path, inputs: list[Path], shardtalk: Run) -> None:
    code, said = shardtalk("verify", output)
    assert code == 0 and "verified: 7 rows, each key once: 7 captions, 0 errors" in said
    code, said = shardtalk("verify", output, *inputs)
    assert code == 0 and "the 4 files of its input" in said


@pytest.mark.parametrize("image_id", ["0.jpg", "k3"])
def test_a_deleted_part(image_id: str, output: Path, shardtalk: Run) -> None:
    part = part_of(output, image_id)
    part.unlink()
    code, said = shardtalk("verify", output)
    assert code == 1 and f"{part.name}: missing" in said and "NOT verified: 1 problems" in said


def test_a_flipped_byte(output: Path, shardtalk: Run) -> None:
    part = part_of(output, "k1")
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    code, said = shardtalk("verify", output)
    assert code == 1 and f"{part.name}: differs from what was committed" in said


def test_a_deleted_record(output: Path, shardtalk: Run) -> None:
    part = part_of(output, "k1")
    record_of(output, "k1").unlink()
    code, said = shardtalk("verify", output)
    assert code == 1
    assert f"{part.name} has no commit record" in said and "s.tar: rows 1 to 2 are missing" in said
    assert "the manifest says 7 rows, the commit records 5" in said


def test_rows_missing_at_the_end(output: Path, inputs: list[Path], shardtalk: Run) -> None:
    part_of(output, "k3").unlink()
    record_of(output, "k3").unlink()
    (output / "_manifest.json").unlink()
    code, said = shardtalk("verify", output)
    assert code == 1
    assert "s.tar: the rows from 3 on are missing" in said and "there is no _manifest.json" in said
    assert "s.tar: the rows from 3 on are missing" in shardtalk("verify", output, *inputs)[1]


def test_a_torn_record(output: Path, shardtalk: Run) -> None:
    record = record_of(output, "k1")
    record.write_bytes(record.read_bytes()[:40])
    code, said = shardtalk("verify", output)
    assert code == 2 and record.name in said and "is damaged" in said


@pytest.mark.parametrize("changes", [{"paths": {}}, {"intervals": [[1]]}, {"rows": 1, "more": 2}])
def test_an_edited_record(changes: dict[str, object], output: Path, shardtalk: Run) -> None:
    record = record_of(output, "k1")
    edit(record, **changes)
    code, said = shardtalk("verify", output)
    assert code == 2 and record.name in said


def test_a_record_that_counts_other_rows(output: Path, shardtalk: Run) -> None:
    edit(record_of(output, "k1"), rows=3)
    code, said = shardtalk("verify", output)
    assert code == 1 and "its rows do not match its commit record" in said


def test_a_record_under_another_name_with_other_intervals(output: Path, shardtalk: Run) -> None:
    record = record_of(output, "k1")
    commit = json.loads(record.read_text())
    ((shard, start, stop, offset, last),) = commit["intervals"]
    doubled = record.with_name("part-0000000000000000.commit")
    doubled.write_text(json.dumps(commit | {"intervals": [[shard, start + 1, stop + 1, offset, last]]}))
    code, said = shardtalk("verify", output)
    assert code == 1
    assert "s.tar: row 2 occurs more than once" in said
    assert f"{commit['file']}: its rows do not match the intervals of its commit record" in said


def test_an_edited_manifest(output: Path, shardtalk: Run) -> None:
    manifest = json.loads((output / "_manifest.json").read_text())
    part = part_of(output, "k1").name
    edit(output / "_manifest.json", files=manifest["files"] | {part: {"rows": 9, "sha256": "0"}})
    code, said = shardtalk("verify", output)
    assert code == 1 and f"{part}: the manifest says {{'rows': 9" in said
    edit(output / "_manifest.json", files=manifest["files"], totals=manifest["totals"] | {"rows": 8})
    assert "the manifest says 8 rows, the commit records 7" in shardtalk("verify", output)[1]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 1, "totals": {"rows": 7}}', '{"files": {}, "totals": 0}'])
def test_a_damaged_manifest(text: str, output: Path, shardtalk: Run) -> None:
    (output / "_manifest.json").write_text(text)
    code, said = shardtalk("verify", output)
    assert code == 1 and "_manifest.json is damaged" in said


def test_a_stray_part(output: Path, shardtalk: Run) -> None:
    (output / "part-stray.parquet").write_bytes(part_of(output, "k1").read_bytes())
    code, said = shardtalk("verify", output)
    assert code == 1 and "part-stray.parquet has no commit record" in said and "1 problems" in said


def test_files_that_came_and_went(output: Path, inputs: list[Path], shardtalk: Run) -> None:
    (inputs[0] / "0.jpg").rename(inputs[0] / "renamed.jpg")
    (inputs[0] / "new.jpg").write_bytes(jpeg(8))
    code, said = shardtalk("verify", output, *inputs)
    assert code == 1
    for name in ("renamed.jpg", "new.jpg"):
        assert f"{inputs[0] / name}: not in the output" in said
    assert f"{inputs[0] / '0.jpg'}: in the output but not in the input" in said
    assert shardtalk("verify", output, inputs[0] / "1.jpg", inputs[0] / "2.jpg")[0] == 1


CHANGED_KEYS = {
    "added": (["k0", "k1", "k2", "k3", "k4"], "has changed since it was captioned"),
    "removed": (["k0", "k1", "k2"], "s.tar: 1 row ('k3') not in the input"),
    "renamed": (["k0", "other", "k2", "k3"], "s.tar: 1 image ('other') without a row"),
}


@pytest.mark.parametrize("change", CHANGED_KEYS)
def test_a_shard_whose_keys_changed(change: str, output: Path, inputs: list[Path], shardtalk: Run) -> None:
    keys, expected = CHANGED_KEYS[change]
    inputs[1].write_bytes(tar_bytes({f"{key}.jpg": jpeg(i) for i, key in enumerate(keys)}))
    code, said = shardtalk("verify", output, *inputs)
    assert code == 1 and f"{inputs[1]}: has changed since it was captioned" in said and expected in said


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_keys_are_compared_one_by_one(form: str, tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    """Keeps name, size and time of the shard."""
    tar = tar_of_pictures(tmp_path / "s.tar", 3)
    assert caption(tar, "--format", form)[0] == 0
    images = {"k0.jpg": jpeg(0), "kX.jpg": jpeg(1), "k2.jpg": jpeg(2)}
    replace_keeping_size_and_time(tar, tar_bytes(images))
    code, said = shardtalk("verify", tmp_path / "out", tar)
    assert code == 1 and "2 problems" in said
    assert f"{tar}: 1 image ('kX') without a row\n{tar}: 1 row ('k1') not in the input" in said


def test_more_problems_than_anybody_reads_are_cut_short(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    assert caption(pictures(tmp_path / "in", 1))[0] == 0
    for i in range(150):
        (tmp_path / "in" / f"new{i}.jpg").hardlink_to(tmp_path / "in" / "0.jpg")
    code, said = shardtalk("verify", tmp_path / "out", tmp_path / "in")
    assert code == 1 and said.count("\n") == 101 and "more than 100 problems" in said


def test_what_is_no_output_is_refused(tmp_path: Path, shardtalk: Run) -> None:
    for name in ("missing", ""):
        code, said = shardtalk("verify", tmp_path / name)
        assert code == 2 and "is no output of `shardtalk caption`" in said


def test_an_output_alone_is_checked_against_itself_only(output: Path, shardtalk: Run) -> None:
    assert "checked against itself only; give its inputs, too" in shardtalk("verify", output)[1]


@pytest.mark.parametrize("name", ["extra.parquet", "more.jsonl", "_hidden.csv", "sub/extra.parquet", "a/b/c.jsonl"])
def test_data_that_no_record_names(name: str, output: Path, shardtalk: Run) -> None:
    (output / name).parent.mkdir(parents=True, exist_ok=True)
    (output / name).write_bytes(part_of(output, "k1").read_bytes())
    code, said = shardtalk("verify", output)
    assert code == 1 and f"{name} does not belong to this output" in said and "1 problems" in said


@pytest.mark.parametrize("name", ["index.html", ".parquet", "_exports/rows.jsonl", "notes/readme.md"])
def test_other_files_do_not_matter(name: str, output: Path, shardtalk: Run) -> None:
    (output / name).parent.mkdir(parents=True, exist_ok=True)
    (output / name).write_bytes(b"")
    assert shardtalk("verify", output)[0] == 0


@pytest.mark.parametrize(
    ("total", "expected"),
    [("captions", "0 captions, the commit records 7"), ("errors", "0 errors, the"), ("shards", "0 shards, the")],
)
def test_a_manifest_with_other_totals(total: str, expected: str, output: Path, shardtalk: Run) -> None:
    manifest = json.loads((output / "_manifest.json").read_text())
    assert manifest["totals"] == {"rows": 7, "captions": 7, "errors": 0, "shards": 4}
    manifest["totals"][total] = 0 if manifest["totals"][total] else 3
    (output / "_manifest.json").write_text(json.dumps(manifest))
    code, said = shardtalk("verify", output)
    assert code == 1 and expected.replace("0 errors", "3 errors") in said and "1 problems" in said


def test_a_manifest_with_other_errors(output: Path, shardtalk: Run) -> None:
    edit(output / "_manifest.json", errors={"empty_file": 1})
    code, said = shardtalk("verify", output)
    assert code == 1 and "the manifest says that the errors are {'empty_file': 1}, the commit records {}" in said


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"captioner": {"name": "other"}}, "the manifest says that captioner is "),
        ({"format": "jsonl"}, "is not in the format of _job.json, 'jsonl'"),
        ({"reading": {"rules": 2, "image_members": ["a.jpg"]}}, "the manifest says that reading is "),
    ],
)
def test_another_job(changes: dict[str, object], expected: str, output: Path, shardtalk: Run) -> None:
    edit(output / "_job.json", **changes)
    code, said = shardtalk("verify", output)
    assert code == 1 and expected in said


def test_a_record_that_counts_other_errors(output: Path, shardtalk: Run) -> None:
    record = record_of(output, "k1")
    edit(record, errors={"empty_file": 2})
    code, said = shardtalk("verify", output)
    assert code == 1 and "its errors are {}, but {'empty_file': 2} in its commit record" in said


def test_captions_and_errors_are_counted_from_the_rows(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    images = pictures(tmp_path / "in", 2)
    (images / "empty.jpg").touch()
    caption(images, "--max_error_rate", 1)
    code, said = shardtalk("verify", tmp_path / "out", images)
    assert code == 0 and "verified: 3 rows, each key once: 2 captions, 1 errors" in said


def test_rows_that_another_listing_finds(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    """Verifies links between folders, hidden files and a metadata table: files that the job ignores are not missing."""
    images = pictures(tmp_path / "in", 2)
    pictures(images / "below", 1)
    (images / "link").symlink_to("below")
    (images / "below" / "up").symlink_to("..")
    (images / ".hidden.jpg").write_bytes(jpeg(7))
    (images / "notes.txt").write_text("none")
    pq.write_table(pa.table({"file_name": ["0.jpg"]}), images / "metadata.parquet")
    assert caption(images)[0] == 0
    code, said = shardtalk("verify", tmp_path / "out", images, f"{tmp_path}/i*/*.jpg", images / "0.jpg")
    assert code == 0, said


def test_a_list_and_a_table(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    pictures(tmp_path / "in", 3)
    listed = tmp_path / "list.csv"
    listed.write_text("id,path\na,in/0.jpg\nb,in/1.jpg\n")
    table = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": [5, 6], "image": [jpeg(1), jpeg(2)]}), table)
    assert caption(listed, table)[0] == 0
    assert shardtalk("verify", tmp_path / "out", listed, table)[0] == 0
    replace_keeping_size_and_time(listed, b"id,path\na,in/0.jpg\nc,in/1.jpg\n")
    code, said = shardtalk("verify", tmp_path / "out", listed, table)
    assert code == 1 and f"{listed}: 1 image ('c') without a row\n{listed}: 1 row ('b') not in the input" in said
