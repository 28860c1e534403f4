"""CIDEr-D, compared with pycocoevalcap's."""

import random

import pytest
from pycocoevalcap.cider.cider_scorer import CiderScorer

from pipeline.evaluation.cider import CiderD, ngrams

WORDS = ["a", "b", "c", "d", "e", "f", "g"]


def some_captions(seed: int, images: int = 30) -> tuple[list[list[list[str]]], list[list[str]]]:
    """References of each image, and a caption for it."""
    draw = random.Random(seed)

    def caption() -> list[str]:
        return draw.choices(WORDS, weights=range(1, 8), k=draw.randint(1, 9))

    return [[caption() for _ in range(draw.randint(1, 5))] for _ in range(images)], [caption() for _ in range(images)]


@pytest.mark.parametrize("seed", range(3))
def test_a_reward_is_the_published_score(seed: int) -> None:
    references, captions = some_captions(seed)
    scorer = CiderScorer()
    for caption, theirs in zip(captions, references, strict=True):
        scorer += (" ".join(caption), [" ".join(tokens) for tokens in theirs])
    _, expected = scorer.compute_score()
    reward = CiderD(references)
    found = [reward([caption], theirs)[0] for caption, theirs in zip(captions, references, strict=True)]
    assert found == pytest.approx(list(expected), abs=1e-9)
    assert reward(captions[:3], references[0]) == [reward([caption], references[0])[0] for caption in captions[:3]]
    assert max(expected) > 1


def test_a_caption_without_words_is_worth_nothing() -> None:
    reward = CiderD([[["a", "b"]], [["c"]]])
    worthless, worthwhile = reward([[], ["a", "b"]], [["a", "b"]])
    assert worthless == 0.0 < worthwhile


def test_ngrams_are_of_one_to_four() -> None:
    assert len(list(ngrams("abcde"))) == 5 + 4 + 3 + 2
