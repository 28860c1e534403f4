"""`shardtalk export` as a user sees it: tables, sidecars, and what it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest
from conftest import Run, jpeg, pictures, tar_bytes, tar_of_pictures
from exported import SCORED, captioned, rows_of
from outputs import commit

from pipeline.inputs.listing import list_inputs
from pipeline.storage.folder import Folder


def texts(folder: Path) -> dict[str, str]:
    """Reads the text files below a folder."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.txt")}


def images_and_times(folder: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*.jpg")}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five images, one of them damaged, in two folders."""
    folder = pictures(tmp_path / "in", 2)
    pictures(folder / "b", 2)
    (folder / "bad.jpg").write_bytes(b"")
    return folder


def test_csv_has_a_row_for_each_image(tmp_path: Path, photos: Path, shardtalk: Run) -> None:
    captions = captioned(tmp_path / "out", photos, part_rows=2)
    code, said = shardtalk("export", tmp_path / "out", "--to", "csv", tmp_path / "c.csv")
    assert code == 0 and f"5 rows written to {tmp_path / 'c.csv'}" in said
    frame = pd.read_csv(tmp_path / "c.csv")
    assert list(frame["path"]) == ["0.jpg", "1.jpg", "b/0.jpg", "b/1.jpg", "bad.jpg"]
    assert dict(zip(frame["path"], frame["caption"], strict=True)) | {"bad.jpg": None} == captions | {"bad.jpg": None}
    assert frame["error"][4].startswith("empty_file: ") and frame["confidence"].isna().all()


@pytest.mark.parametrize(("errors", "rows"), [("exclude", 4), ("only", 1)])
def test_errors_can_be_left_out_or_alone(errors: str, rows: int, tmp_path: Path, photos: Path, shardtalk: Run) -> None:
    captioned(tmp_path / "out", photos)
    code, said = shardtalk("export", tmp_path / "out", tmp_path / "c.jsonl", "--to", "jsonl", "--errors", errors)
    assert code == 0 and f"left out: {5 - rows} {'errors' if errors == 'exclude' else 'captions'}" in said
    found = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().splitlines()]
    assert len(found) == rows and all((row["error_code"] is None) == (errors == "exclude") for row in found)


def test_improbable_captions_are_left_out(tmp_path: Path, shardtalk: Run) -> None:
    found = list_inputs([str(pictures(tmp_path / "in", 4))]).shards
    scores = ((-3.0, 2), (-3.0, 4), (-4.0, 4), (None, None))
    rows = [
        row | SCORED | {"log_prob": log_prob, "num_tokens": num_tokens}
        for row, (log_prob, num_tokens) in zip(rows_of(found), scores, strict=True)
    ]
    commit(Folder(str(tmp_path / "out")), rows)
    given = ("export", tmp_path / "out", tmp_path / "c.json", "--to", "coco", "--min_log_prob_per_token=-1")
    code, said = shardtalk(*given)
    assert code == 0 and "2 rows written" in said and "left out: 2 captions below min_log_prob_per_token -1" in said
    assert [entry["image_id"] for entry in json.loads((tmp_path / "c.json").read_text())] == [1, 2]


def test_a_review_drops_and_edits_captions_and_keeps_improbable_ones(tmp_path: Path, shardtalk: Run) -> None:
    captions = captioned(tmp_path / "out", pictures(tmp_path / "in", 5), part_rows=2)
    decisions = [
        {"shard": str(tmp_path / "in" / name), "index": 0, "image_id": name, "reviewed_caption": seen} | made
        for name, seen, made in [
            ("0.jpg", captions["0.jpg"], {"decision": "keep"}),
            ("1.jpg", captions["1.jpg"], {"decision": "reject"}),
            ("2.jpg", captions["2.jpg"], {"decision": "keep", "caption": "=a fox"}),
            ("3.jpg", "another caption", {"decision": "reject"}),
            ("x.jpg", "a caption", {"decision": "reject"}),
        ]
    ]
    review = {"format": "shardtalk-review", "version": 1, "output": "out", "decisions": decisions}
    (tmp_path / "review.json").write_text(json.dumps(review))
    given = ("export", tmp_path / "out", tmp_path / "t", "--to", "txt", "--review", tmp_path / "review.json")
    code, said = shardtalk(*given)
    assert code == 0 and "4 files written" in said and "left out: 1 rejected" in said
    assert "of 5 decisions of the review: 1 kept, 1 edited, 1 rejected, 1 made on other captions" in said
    expected = {name.replace("jpg", "txt"): text for name, text in captions.items() if name != "1.jpg"}
    assert texts(tmp_path / "t") == expected | {"2.txt": "=a fox"}
    csv = ("export", tmp_path / "out", tmp_path / "c.csv", "--to", "csv", "--min_log_prob_per_token=-0.1", *given[-2:])
    assert shardtalk(*csv)[0] == 0
    assert list(pd.read_csv(tmp_path / "c.csv")["caption"]) == [captions["0.jpg"], "'=a fox"]
    (tmp_path / "review.json").write_text(json.dumps(review | {"decisions": []}))
    code, said = shardtalk(*given)
    assert code == 2 and "holds another export: review was" in said


def test_a_review_that_is_none_is_refused(tmp_path: Path, shardtalk: Run) -> None:
    captioned(tmp_path / "out", pictures(tmp_path / "in", 1))
    (tmp_path / "r.json").write_text("[]")
    code, said = shardtalk("export", tmp_path / "out", tmp_path / "c.csv", "--to=csv", "--review", tmp_path / "r.json")
    assert code == 2 and "is not a review" in said and not (tmp_path / "c.csv").exists()


def test_texts_lie_in_a_mirror_folder(tmp_path: Path, photos: Path, shardtalk: Run) -> None:
    captions = captioned(tmp_path / "out", photos)
    before = images_and_times(photos)
    code, said = shardtalk("export", tmp_path / "out", tmp_path / "t", "--to", "txt", "--extension", "cap.txt")
    assert code == 0 and "4 files written" in said and "left out: 1 errors" in said
    assert texts(tmp_path / "t") == {name.replace(".jpg", ".cap.txt"): text for name, text in captions.items()}
    assert images_and_times(photos) == before and not texts(photos)
    assert json.loads((tmp_path / "t" / "_export.json").read_text())["finished"]


def test_texts_lie_beside_images_if_asked_for(tmp_path: Path, photos: Path, shardtalk: Run) -> None:
    (photos / "0.txt").write_text("mine")
    (photos / "1.txt").symlink_to(tmp_path / "nowhere")
    captions, before = captioned(tmp_path / "out", photos), images_and_times(photos)
    code, said = shardtalk("export", tmp_path / "out", photos, "--to", "txt")
    assert code == 0 and "2 files written" in said and "2 others exist with other contents and were kept" in said
    assert (photos / "0.txt").read_text() == "mine" and not (tmp_path / "nowhere").exists()
    assert {name: (photos / name).read_text() for name in ("b/0.txt", "b/1.txt")} == {
        f"b/{i}.txt": captions[f"b/{i}.jpg"] for i in (0, 1)
    }
    assert images_and_times(photos) == before
    assert {path.suffix for path in photos.rglob("*") if path.is_file()} == {".jpg", ".txt"}


def test_the_same_command_writes_what_is_missing(tmp_path: Path, photos: Path, shardtalk: Run) -> None:
    captioned(tmp_path / "out", photos)
    given = ("export", tmp_path / "out", tmp_path / "t", "--to", "xmp")
    assert shardtalk(*given)[0] == 0
    whole = {path: path.read_bytes() for path in (tmp_path / "t").rglob("*.xmp")}
    (tmp_path / "t" / "b" / "1.xmp").unlink()
    code, said = shardtalk(*given)
    assert code == 0 and "1 files written" in said and "3 were there already" in said
    assert {path: path.read_bytes() for path in (tmp_path / "t").rglob("*.xmp")} == whole and len(whole) == 4


def test_images_of_one_name_and_names_that_are_no_text(tmp_path: Path, shardtalk: Run) -> None:
    folder = pictures(tmp_path / "in", 1)
    (folder / "0.png").write_bytes(jpeg(1))
    Path(os.fsdecode(bytes(folder) + b"/\xff\\xff.jpg")).write_bytes(jpeg(2))
    captions = captioned(tmp_path / "out", folder)
    assert shardtalk("export", tmp_path / "out", folder, "--to", "txt")[0] == 0
    assert (folder / "0.jpg.txt").read_text() == captions["0.jpg"]
    assert (folder / "0.png.txt").read_text() == captions["0.png"]
    assert os.path.exists(bytes(folder) + b"/\xff\\xff.txt") and len(texts(folder)) == 3  # noqa: PTH110


def test_images_of_tars_are_called_by_their_keys(tmp_path: Path, shardtalk: Run) -> None:
    members = {"a/k.jpg": jpeg(0), "2.left.jpg": jpeg(1), "2.right.jpg": jpeg(2), "../../x.jpg": jpeg(3)}
    for name in ("s/0.tar", "1.tar"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(tar_bytes(members))
    captions = captioned(tmp_path / "out", tmp_path / "in")
    assert shardtalk("export", tmp_path / "out", tmp_path / "t", "--to", "txt")[0] == 0
    found = texts(tmp_path / "t")
    for tar in ("s/0.tar", "1.tar"):
        for key in ("a/k", "2.left", "2.right"):
            assert found.pop(f"{tar}/{key}.txt") == captions[key]
    assert len(found) == 2 and set(found.values()) == {captions["../../x"]}
    assert not any("/" in name for name in found)


@pytest.mark.parametrize("form", ["txt", "webdataset"])
def test_a_destination_inside_the_input_is_refused(form: str, tmp_path: Path, photos: Path, shardtalk: Run) -> None:
    captioned(tmp_path / "out", photos)
    for place in [photos / "b", photos / "new", *([photos] if form == "webdataset" else [])]:
        code, said = shardtalk("export", tmp_path / "out", place, "--to", form)
        assert code == 2 and "lies inside" in said, place
    assert {path.suffix for path in photos.rglob("*") if path.is_file()} == {".jpg"}


def test_a_destination_beside_tars_is_refused(tmp_path: Path, shardtalk: Run) -> None:
    tar = tar_of_pictures(tmp_path / "in" / "s.tar", 2)
    captioned(tmp_path / "out", tar)
    assert shardtalk("export", tmp_path / "out", tar.parent / "t", "--to", "webdataset")[0] == 2
    assert list(tar.parent.iterdir()) == [tar]


def test_folders_of_something_else_are_refused(tmp_path: Path, photos: Path, shardtalk: Run) -> None:
    captioned(tmp_path / "out", photos)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.doc").write_text("mine")
    given = ("export", tmp_path / "out", "--to", "txt")
    assert "holds other files, such as mine.doc" in shardtalk(*given, tmp_path / "full")[1]
    assert "lies inside the output" in shardtalk(*given, tmp_path / "out" / "t")[1]
    assert shardtalk(*given, tmp_path / "t")[0] == 0
    code, said = shardtalk(*given, tmp_path / "t", "--extension", "cap")
    assert code == 2 and "extension was 'txt' and is 'cap'" in said
    code, said = shardtalk("export", photos, tmp_path / "c.csv", "--to", "csv")
    assert code == 2 and "no output of `shardtalk caption`" in said


def test_a_list_that_was_captioned_is_not_overwritten(tmp_path: Path, shardtalk: Run) -> None:
    pictures(tmp_path / "in", 2)
    table = tmp_path / "in" / "list.csv"
    table.write_text("path\n0.jpg\n1.jpg\n")
    captioned(tmp_path / "out", table)
    code, said = shardtalk("export", tmp_path / "out", table, "--to", "csv")
    assert code == 2 and "is an input" in said and table.read_text() == "path\n0.jpg\n1.jpg\n"


def test_only_a_verified_output_is_exported_unless_told(tmp_path: Path, photos: Path, shardtalk: Run) -> None:
    captioned(tmp_path / "out", photos)
    next((tmp_path / "out").glob("_manifest.json")).unlink()
    given = ("export", tmp_path / "out", tmp_path / "c.csv", "--to", "csv")
    code, said = shardtalk(*given)
    assert code == 2 and "not verified" in said and "--unverified" in said and not (tmp_path / "c.csv").exists()
    assert shardtalk(*given, "--unverified")[0] == 0 and len(pd.read_csv(tmp_path / "c.csv")) == 5
    next((tmp_path / "out").glob("part-*")).write_bytes(b"damaged")
    code, said = shardtalk(*given, "--unverified")
    assert code == 2 and "is damaged" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["out", "--to", "csv"], "need two paths, OUT and DEST, and 1 are given"),
        (["out", "c.txt", "--to", "csv"], "must end in .csv"),
        (["out", "c"], "{csv,jsonl,coco,vis,txt,xmp,webdataset,huggingface}` is missing"),
        (["out", "c", "--to", "txt", "--errors", "only"], "holds captions only"),
        (["out", "c", "--to", "txt", "--extension", "../x"], "letters, digits and dots"),
        (["out", "c.csv", "--to", "csv", "--min_log_prob_per_token", "0.5"], "must be 0 or less"),
    ],
    ids=["one path", "ending", "format", "errors", "extension", "threshold"],
)
def test_mistakes_are_a_line(given: list[str], message: str, shardtalk: Run) -> None:
    code, said = shardtalk("export", *given)
    assert code == 2 and message in said and said.count("\n") == 1
