"""Consensus among candidates."""

from collections import defaultdict

import pytest
from pycocoevalcap.cider.cider_scorer import CiderScorer

from model.decoding.hypothesis import Hypothesis
from model.decoding.reranking import rerank
from pipeline.captioners.reranking import Consensus
from pipeline.evaluation.cider import CiderD

CAPTIONS = [[1, 2, 3, 4, 5], [1, 2, 3, 4], [9, 8, 7], [1, 2, 6, 4, 5, 5], [1, 2, 3, 4]]


def hypotheses(*captions: list[int]) -> list[Hypothesis]:
    return [Hypothesis(words, -float(i)) for i, words in enumerate(captions, start=1)]


def test_the_caption_most_others_resemble_comes_first() -> None:
    found = [hypotheses(*CAPTIONS), hypotheses([3], [4, 5], [4, 5, 6])]
    best = rerank(found, Consensus()({}, found))
    assert best[0][0].words == [1, 2, 3, 4] and best[0][-1].words == [9, 8, 7]
    assert best[1][-1].words == [3]


def test_consensus_is_the_mean_cider_of_uniform_weights() -> None:
    """Compares with pycocoevalcap's CIDEr-D without document frequencies."""
    (scores,) = Consensus()({}, [hypotheses(*CAPTIONS)])
    for i, (score, caption) in enumerate(zip(scores, CAPTIONS, strict=True)):
        others = [" ".join(map(str, other)) for j, other in enumerate(CAPTIONS) if j != i]
        scorer = CiderScorer(" ".join(map(str, caption)), others)
        scorer += ("a", ["b"])  # of one image alone, all weights are 0
        scorer.document_frequency = defaultdict(float)
        assert score == pytest.approx(float(scorer.compute_cider()[0]))


def test_a_caption_does_not_depend_on_its_neighbours() -> None:
    found = [hypotheses(*CAPTIONS), hypotheses([3], [4, 5]), hypotheses([1, 2])]
    together = Consensus()({}, found)
    assert together == [Consensus()({}, [some])[0] for some in found]
    assert together[2] == [0.0]


def test_uniform_weights_need_no_references() -> None:
    similarity = CiderD.uniform()
    assert similarity([[1, 2, 3, 4], [5, 6]], [[1, 2, 3, 4]]) == pytest.approx([10.0, 0.0])
