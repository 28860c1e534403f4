"""`shardtalk compare` as a user sees it, and its bootstrap beside scipy's."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run, jpeg, pictures, tar_of_pictures
from exported import SCORED, rows_of
from outputs import commit
from scipy import stats

from pipeline.evaluation.comparison import paired_bootstrap
from pipeline.inputs.listing import list_inputs
from pipeline.storage.folder import Folder

pytestmark = pytest.mark.usefixtures("no_java")

WORDS = ["a dog runs", "the red house", "two birds", "green grass grows", "a blue cat sits"]


def output(path: Path, given: Path, captions: dict[str, str | None]) -> Path:
    """Writes an output with these captions, by image_id; None is an error."""
    error = {"caption": None, "error_code": "corrupt_image", "error_message": "cut"}
    rows = [
        row | (error if captions[row["image_id"]] is None else SCORED | {"caption": captions[row["image_id"]]})
        for row in rows_of(list_inputs([str(given)]).shards)
        if row["image_id"] in captions
    ]
    commit(Folder(str(path)), rows)
    return path


def compared(shardtalk: Run, tmp_path: Path, *arguments: object) -> tuple[dict[str, Any], str]:
    code, said = shardtalk("compare", *arguments, "--output", tmp_path / "report.json")
    assert code == 0, said
    report: dict[str, Any] = json.loads((tmp_path / "report.json").read_text())
    return report, said


def test_counts_tell_what_differs(tmp_path: Path, shardtalk: Run) -> None:
    given = pictures(tmp_path / "in", 6)
    a = output(
        tmp_path / "a", given, {"0.jpg": "a dog", "1.jpg": "a cat sits", "2.jpg": None, "3.jpg": "x", "4.jpg": None}
    )
    b = output(
        tmp_path / "b", given, {"0.jpg": "a dog", "1.jpg": "a cat runs", "2.jpg": "y", "4.jpg": None, "5.jpg": "z"}
    )
    report, said = compared(shardtalk, tmp_path, a, b)
    assert report["counts"] == {
        "images": 4,
        "only_a": 1,
        "only_b": 1,
        "same": 2,
        "different": 1,
        "errors_only_a": 1,
        "errors_only_b": 0,
        "words_changed": pytest.approx(1 / 3),
    }
    assert "4 images in both, 1 only in A, 1 only in B" in said
    assert "1 captions differ (25.0%), by 33% of their words on average" in said and "CIDEr" not in said


def test_the_same_images_of_another_folder_are_found_by_their_ids(tmp_path: Path, shardtalk: Run) -> None:
    captions = {"0.jpg": "a dog", "1.jpg": "a cat"}
    a, b = (output(tmp_path / name, pictures(tmp_path / f"in-{name}", 2), dict(captions)) for name in "ab")
    report, _ = compared(shardtalk, tmp_path, a, b)
    assert (report["counts"]["images"], report["counts"]["same"]) == (2, 2)
    other = output(tmp_path / "c", tar_of_pictures(tmp_path / "s.tar", 1), {"k0": "a dog"})
    code, said = shardtalk("compare", a, other)
    assert code == 2 and "have no image in common" in said


def test_cider_says_which_is_better(tmp_path: Path, shardtalk: Run) -> None:
    given, count = pictures(tmp_path / "in", 20), 20
    texts = [f"{WORDS[i % 5]} number {i}" for i in range(count)]
    references = tmp_path / "references.json"
    references.write_text(json.dumps([{"file_path": f"{i}.jpg", "captions": [texts[i]]} for i in range(count)]))
    a = output(tmp_path / "a", given, {f"{i}.jpg": texts[(i + 1) % count] if i % 2 else texts[i] for i in range(count)})
    b = output(tmp_path / "b", given, {f"{i}.jpg": texts[i] for i in range(count)})
    found, said = compared(shardtalk, tmp_path, a, b, "--references", references)
    cider, difference = found["cider"], found["cider"]["difference"]
    assert cider["images"] == count and cider["b"] > cider["a"] and f"B {cider['b']:.4f}" in said
    assert difference["mean"] == pytest.approx(cider["b"] - cider["a"])
    assert 0 < difference["low"] < difference["mean"] < difference["high"] and difference["p_value"] < 0.01
    swapped, _ = compared(shardtalk, tmp_path, b, a, "--references", references)
    assert swapped["cider"]["difference"]["mean"] == pytest.approx(-difference["mean"])
    same, _ = compared(shardtalk, tmp_path, b, b, "--references", references)
    assert same["cider"]["difference"] == {"mean": 0.0, "low": 0.0, "high": 0.0, "p_value": 1.0}


def test_the_interval_is_scipys() -> None:
    draws = np.random.default_rng(3)
    a, b = draws.normal(0, 1, 200), draws.normal(0.2, 1, 200)
    found = paired_bootstrap(a, b, resamples=4000, seed=0)
    theirs = stats.bootstrap((b - a,), np.mean, n_resamples=4000, method="percentile", rng=draws).confidence_interval
    assert found.mean == pytest.approx(np.mean(b) - np.mean(a))
    assert [found.low, found.high] == pytest.approx([theirs.low, theirs.high], abs=0.02)


class Page(HTMLParser):
    """The texts of a page, its marked texts, and the names of its elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names, self.texts, self.marked, self.sources = list[str](), list[str](), list[str](), list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.sources += [value or "" for name, value in attrs if name == "src"]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.names[-1:] == ["mark"]:
            self.marked.append(data)
            self.names.append("")


def test_the_page_shows_different_captions_first(tmp_path: Path, shardtalk: Run) -> None:
    given, hostile = pictures(tmp_path / "in", 3), "<img src=x onerror=alert(1)>"
    (given / f"{hostile}.jpg").write_bytes(jpeg(5))
    captions = {f"{i}.jpg": "a dog" for i in range(3)}
    a = output(tmp_path / "a", given, captions | {f"{hostile}.jpg": f"{hostile} $x"})
    b = output(tmp_path / "b", given, captions | {f"{hostile}.jpg": "$y", "2.jpg": "a cat"})
    path = tmp_path / "new" / "page?.html"
    code, said = shardtalk("compare", a, b, "--page", path, "--max_images", 3)
    assert code == 0 and str(path) in said
    page = Page(path.read_text(encoding="utf-8"))
    shown = [text for text in page.texts if text.endswith(".jpg")]
    assert shown[:2] == ["2.jpg", f"{hostile}.jpg"] and shown[2:] == ["0.jpg"]
    assert page.marked == ["dog", "cat", f"{hostile} $x", "$y"] and "script" not in page.names
    assert {"Captions that differ: 2", "The same captions: 1 of 2"} <= set(page.texts)
    assert len(page.sources) == 3
    for source in page.sources:
        assert (path.parent / source.replace("%3F", "?")).is_file()


def test_mistakes_are_a_line(tmp_path: Path, shardtalk: Run) -> None:
    code, said = shardtalk("compare", tmp_path)
    assert code == 2 and "need two outputs" in said
    code, said = shardtalk("compare", tmp_path, tmp_path)
    assert code == 2 and "is no output of `shardtalk caption`" in said
