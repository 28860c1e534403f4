"""The metrics, compared with those of pycocoevalcap's example script on the same input."""

import json
import random
import shutil
import string
from collections.abc import Mapping, Sequence
from pathlib import Path

import pycocoevalcap.eval
import pytest
from pycocoevalcap.eval import COCOEvalCap
from pycocotools.coco import COCO

from pipeline.errors import InputError
from pipeline.evaluation.java import Java, find_java
from pipeline.evaluation.metrics import METRICS, Scores, score

FLICKR8K = Path(__file__).parents[3].parent / "shared" / "data" / "flickr8k"
COMPARED = [metric for metric in METRICS if metric != "SPICE"]  # its models are not there to compare with

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="there is no java on PATH")

Captions = Mapping[str, str]
References = Mapping[str, Sequence[str]]

MADE: tuple[Captions, References] = (
    {
        "dog": "A dog isn't running (fast), is it?",
        "b/café 7.jpg": 'two "cats" — sleep; on 1 1/2 chairs...',
        "9": "people",
        "none": "",
        "é": "un café à Paris | 日本",
    },
    {
        "dog": ["A dog's running in the grass.", "the DOG isn't running!", "dogs"],
        "b/café 7.jpg": ["Two cats sleep on a chair and a half", "cats: asleep -- on chairs"],
        "9": ["A group of people, standing", "Some people."],
        "none": ["A house", "One red house"],
        "é": ["Un café à Paris.", "a coffee in Paris; 日本"],
    },
)


def flickr8k() -> tuple[Captions, References]:
    """Returns real references, and captions made from them, some of the right image."""
    if not FLICKR8K.is_dir():
        pytest.skip("Flickr8k is not beside the checkout")
    draw = random.Random(5)
    images = json.loads((FLICKR8K / "val.json").read_text())[:120]
    captions = {}
    for image in images:
        other = draw.choice(images)["captions"]
        words = draw.choice(image["captions"] if draw.random() < 0.5 else other).split()
        captions[image["file_path"]] = " ".join(words[: draw.randint(4, 14)])
    return captions, {image["file_path"]: image["captions"] for image in images}


class NoSpice:
    """Replaces SPICE, which downloads models, in the example."""

    def compute_score(self, gts: References, _: References) -> tuple[float, list[float]]:
        return 0.0, [0.0] * len(gts)

    def method(self) -> str:
        return "SPICE"


def example(captions: Captions, references: References, folder: Path) -> COCOEvalCap:
    """Runs pycocoevalcap's example script."""
    annotations = [
        {"id": f"{image} {place}", "image_id": image, "caption": text}
        for image, texts in references.items()
        for place, text in enumerate(texts)
    ]
    (folder / "coco.json").write_text(
        json.dumps({"images": [{"id": image} for image in references], "annotations": annotations})
    )
    results = [{"image_id": image, "caption": text} for image, text in captions.items()]
    (folder / "results.json").write_text(json.dumps(results))
    coco = COCO(str(folder / "coco.json"))
    evaluation = COCOEvalCap(coco, coco.loadRes(str(folder / "results.json")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pycocoevalcap.eval, "Spice", NoSpice)
        patch.setenv("JAVA_TOOL_OPTIONS", "-Dfile.encoding=UTF-8")  # until Java 18 it was the locale's
        evaluation.evaluate()
    return evaluation


@pytest.fixture(scope="module")
def java() -> Java:
    return find_java(timeout_s=300)


@needs_java
@pytest.mark.parametrize("given", [lambda: MADE, flickr8k], ids=["made", "flickr8k"])
def test_numbers_are_those_of_pycocoevalcaps_example(given: object, java: Java, tmp_path: Path) -> None:
    captions, references = given()  # type: ignore[operator]
    expected = example(captions, references, tmp_path)
    found = score(captions, references, java=java)
    assert found.tokens == "PTB" and not found.failed
    assert {metric: found.totals[metric] for metric in COMPARED} == {
        metric: pytest.approx(expected.eval[metric], abs=1e-12) for metric in COMPARED
    }
    for metric in COMPARED:
        theirs = [expected.imgToEval[image][metric] for image in captions]
        assert found.per_image[metric] == pytest.approx(theirs, abs=1e-12), metric
    assert all(found.totals[metric] > 0 for metric in COMPARED)


ODD = [
    "a dog\nruns",
    "a\rdog\x85runs\u2028fast\x0b",
    "\"a\" ||| dog ||| 'runs'",
    "",
    " \n ",
    "…",
    "\ud83d dog 👍",
    "a\0b",
]


@needs_java
def test_odd_captions_and_references_stay_with_their_images(java: Java) -> None:
    captions = {str(i): text for i, text in enumerate([*ODD, "a red house on a hill", ""])}
    references = {image: [text, "a red house on a hill"] for image, text in captions.items()}
    found = score(captions, references, java=java)
    assert set(found.missing) == {"SPICE"}
    place = len(ODD)
    for metric in ("Bleu_4", "ROUGE_L", "METEOR"):
        assert found.per_image[metric][place] == pytest.approx(1, abs=1e-6), metric
        assert [len(values) for values in found.per_image.values()] == [len(captions)] * len(COMPARED)
    for empty in (3, 4, 5, place + 1):
        assert found.per_image["METEOR"][empty] == 0 == found.per_image["CIDEr"][empty]


def without_java(captions: Captions, references: References) -> Scores:
    return score(captions, references, without_java="none here")


def test_without_java_the_rest_is_of_our_own_tokens() -> None:
    found = without_java(*MADE)
    assert found.tokens == "own" and not found.failed
    assert list(found.totals) == ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"]
    assert found.missing == {
        "PTB tokens": "none here",
        "METEOR": "it needs Java: none here",
        "SPICE": "it needs Java: none here",
    }


def test_the_right_caption_is_worth_more_than_another_images() -> None:
    references = {"1": ["A dog, running!"], "2": ["Two cats sleep."]}
    right = without_java({"1": "a dog running", "2": "two cats sleep"}, references)
    wrong = without_java({"1": "two cats sleep", "2": "a dog running"}, references)
    assert right.totals["CIDEr"] > 5 and right.totals["ROUGE_L"] == 1
    assert wrong.totals["CIDEr"] == 0 and wrong.totals["ROUGE_L"] == 0


def test_references_without_words_are_refused() -> None:
    with pytest.raises(InputError, match="none of the references of 2 images has a word"):
        without_java({"1": "a dog", "2": "a cat"}, {"1": ["", "!"], "2": [string.punctuation]})
