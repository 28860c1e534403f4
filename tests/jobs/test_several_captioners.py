"""Several captioners in one job: ensembles, and reranking by another captioner."""

import json
import math
from pathlib import Path

import datasets
import pytest
from conftest import WORDS, Run, codes, picture, pictures, rows_of
from tolerances import same_log_prob

from configs.search import Search
from model.captioner import Captioner, Ensemble
from model.captioner.rescoring import CaptionerReranker

SEARCH = Search(beam_size=2, max_tokens=6, num_candidates=2)
TWO = ("--search.num_candidates", 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Uses PNGs, which Pillow decodes without loss."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(5):
        picture(i, 50 + i, 70).save(folder / f"{i}.png")
    (folder / "9.jpg").write_bytes(b"no image")
    return folder


def images() -> list[object]:
    return [picture(i, 50 + i, 70) for i in range(5)]


def captions(output: Path) -> list[list[str] | None]:
    return [row["candidates"] and [c["caption"] for c in row["candidates"]] for row in rows_of(output)]


def test_an_ensembles_rows_are_its_captions(  # noqa: PLR0917
    folder: Path, tmp_path: Path, captioner: Path, second_captioner: Path, caption: Run, shardtalk: Run
) -> None:
    both = ("--captioner", captioner, "--captioner", second_captioner, "--weights", "7,3")
    assert caption(folder, *both, *TWO, "--batch_size", 2)[0] == 0
    ensemble = Ensemble.load([captioner, second_captioner], weights=[0.7, 0.3], device="cpu")
    expected = [[c.text for c in found.candidates] for found in ensemble.caption(images(), SEARCH)]
    assert captions(tmp_path / "out") == [*expected, None]
    assert codes(tmp_path / "out")["9.jpg"] == "not_an_image"
    assert shardtalk("verify", tmp_path / "out", folder)[0] == 0
    alone = [[c.text for c in found.candidates] for found in Captioner.load(captioner).caption(images(), SEARCH)]
    assert expected != alone


def test_the_job_names_all_captioners_and_their_weights(
    folder: Path, tmp_path: Path, captioner: Path, second_captioner: Path, caption: Run
) -> None:
    both = ("--captioner", captioner, "--captioner", second_captioner)
    assert caption(folder, *both, "--weights", "0.7,0.3")[0] == 0
    job = json.loads((tmp_path / "out" / "_job.json").read_text())
    assert job["captioner"]["name"] == "tiny + second"
    assert [(m["name"], m["weight"]) for m in job["captioner"]["members"]] == [("tiny", 0.7), ("second", 0.3)]
    assert caption(folder, *both, "--weights", "7,3")[0] == 0
    for other in ((*both, "--weights", "0.3,0.7"), both, both[:2], both[2:]):
        code, said = caption(folder, *other)
        assert code == 2 and "begun by another job: captioner" in said


def test_captioners_of_other_words_are_refused_by_name(
    folder: Path, tmp_path: Path, captioner: Path, foreign_captioner: Path, caption: Run
) -> None:
    for asked in (
        ("--captioner", captioner, "--captioner", foreign_captioner),
        (*TWO, "--rerank.by", "captioner", "--rerank.captioner", foreign_captioner),
    ):
        code, said = caption(folder, *asked)
        assert code == 2 and f"{captioner} and {foreign_captioner}" in said and "id 2 is 'dog' and 'horse'" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("weights", ["1", "1,2,3", "1,x", "1,0", "1,-1", "1,nan"])
def test_weights_must_be_one_of_each(
    weights: str, folder: Path, captioner: Path, second_captioner: Path, caption: Run
) -> None:
    code, said = caption(folder, "--captioner", captioner, "--captioner", second_captioner, "--weights", weights)
    assert code == 2 and "weights is" in said


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--rerank.by", "consensus"), "num_candidates 1"),
        ((*TWO, "--rerank.by", "captioner"), "give both or neither"),
        ((*TWO, "--rerank.captioner", "x"), "give both or neither"),
        ((*TWO, "--rerank.weight", 2), "rerank.weight is 2"),
    ],
)
def test_reranking_that_cannot_be_is_refused(asked: tuple[object, ...], said: str, folder: Path, caption: Run) -> None:
    code, found = caption(folder, *asked)
    assert code == 2 and said in found


def test_another_captioner_reorders_candidates(
    folder: Path, tmp_path: Path, captioner: Path, second_captioner: Path, caption: Run
) -> None:
    judged = ("--rerank.by", "captioner", "--rerank.captioner", second_captioner, "--rerank.weight", 0.9)
    assert caption(folder, *TWO, *judged)[0] == 0
    judge = CaptionerReranker(Captioner.load(second_captioner, device="cpu"), weight=0.9)
    speaker = Captioner.load(captioner, device="cpu")
    expected = [[c.text for c in found.candidates] for found in speaker.caption(images(), SEARCH, judge)]
    assert captions(tmp_path / "out") == [*expected, None]
    assert expected != [[c.text for c in found.candidates] for found in speaker.caption(images(), SEARCH)]
    assert json.loads((tmp_path / "out" / "_job.json").read_text())["rerank"]["captioner"]["name"] == "second"
    code, said = caption(folder, *TWO)
    assert code == 2 and "rerank" in said


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_token_probabilities_are_a_column_on_request(form: str, tmp_path: Path, caption: Run, shardtalk: Run) -> None:
    folder = pictures(tmp_path / "in", 3)
    (folder / "bad.jpg").write_bytes(b"")
    (folder / "gone.jpg").symlink_to("nowhere")
    asked = ("--search.token_probs", "--format", form)
    assert caption(folder, *asked)[0] == 0
    rows = rows_of(tmp_path / "out")
    assert [row["caption"] is None for row in rows] == [row["token_probs"] is None for row in rows]
    for row in rows[:3]:
        assert len(row["token_probs"]) == row["num_tokens"]
        assert math.log(math.prod(row["token_probs"])) == same_log_prob(row["log_prob"], row["num_tokens"])
    found = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["train"]
    assert found.column_names == list(rows[0])
    assert shardtalk("verify", tmp_path / "out", folder)[0] == 0
    assert caption(folder, *asked, "--retry_errors")[0] == 0
    assert rows_of(tmp_path / "out") == rows
    assert shardtalk("verify", tmp_path / "out", folder)[0] == 0
    assert shardtalk("gallery", tmp_path / "out")[0] == 0


def test_there_are_no_token_probabilities_by_default(tmp_path: Path, caption: Run) -> None:
    assert caption(pictures(tmp_path / "in", 1))[0] == 0
    assert "token_probs" not in rows_of(tmp_path / "out")[0]


def test_rules_reach_the_search(tmp_path: Path, caption: Run) -> None:
    folder = pictures(tmp_path / "in", 4)
    rules = ("--search.no_repeat_ngram_size", 1, "--search.no_bad_endings", "--search.min_tokens", 4)
    assert caption(folder, *rules)[0] == 0
    for row in rows_of(tmp_path / "out"):
        words = row["caption"].split()
        assert len(words) == len(set(words)) >= 4 and words[-1] != WORDS[0]
