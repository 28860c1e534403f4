"""Reranking of candidates."""

from pathlib import Path

import pytest
from conftest import picture
from tolerances import same_log_prob

from configs.search import Search
from model.captioner import Captioner
from model.captioner.rescoring import CaptionerReranker
from model.decoding.hypothesis import Hypothesis
from model.decoding.reranking import rerank
from model.errors import OptionError

SEARCH = Search(beam_size=6, num_candidates=5, max_tokens=5)


@pytest.fixture(scope="module")
def loaded(captioner: Path) -> Captioner:
    return Captioner.load(captioner, device="cpu")


def test_the_greatest_score_comes_first_and_equals_stay() -> None:
    a, b, c, d = (Hypothesis([i], -1.0) for i in range(4))
    assert rerank([[a, b, c], [d]], [[0.1, 0.3, 0.1], [-5.0]]) == [[b, a, c], [d]]


class Longest:
    """A reranker that prefers long captions."""

    pixel_keys = ()

    def __call__(self, pixels: object, found: list[list[Hypothesis]]) -> list[list[float]]:
        return [[float(len(hypothesis.words)) for hypothesis in hypotheses] for hypotheses in found]


def test_any_scorer_can_be_plugged_in(loaded: Captioner) -> None:
    images = [picture(seed) for seed in range(4)]
    for caption, plain in zip(loaded.caption(images, SEARCH, Longest()), loaded.caption(images, SEARCH), strict=True):
        assert caption.candidates == sorted(plain.candidates, key=lambda c: -c.num_tokens)


def test_a_captioner_agrees_with_itself(loaded: Captioner) -> None:
    images = [picture(seed) for seed in range(4)]
    for weight in (0.0, 0.5, 1.0):
        assert loaded.caption(images, SEARCH, CaptionerReranker(loaded, weight=weight)) == loaded.caption(
            images, SEARCH
        )


def test_rescoring_weighs_both_scores(loaded: Captioner) -> None:
    class Contrary(Captioner):
        """A captioner that sees the negative of every image."""

        def initial_state(self, by_key):  # type: ignore[no-untyped-def]
            return super().initial_state({key: 255 - pixels for key, pixels in by_key.items()})

    other = Contrary(loaded._network, loaded.vocabulary, loaded.preprocessing, device=loaded.device, dtype=loaded.dtype)
    images = [picture(seed) for seed in range(6)]
    everything = Search(beam_size=900, num_candidates=900, max_tokens=2)  # all captions of up to two words
    few = Search(beam_size=6, num_candidates=6, max_tokens=2)
    found = loaded.caption(images, few, CaptionerReranker(other, weight=0.3))
    orders = 0
    for caption, mine, theirs in zip(
        found, loaded.caption(images, few), other.caption(images, everything), strict=True
    ):
        known = {candidate.text: candidate.log_prob for candidate in theirs.candidates}
        best = sorted(mine.candidates, key=lambda c: -(0.7 * c.log_prob + 0.3 * known[c.text]) / c.num_tokens**0.7)
        assert [c.text for c in caption.candidates] == [c.text for c in best]
        orders += caption != mine
    assert orders


def test_a_weight_out_of_range_is_refused(loaded: Captioner) -> None:
    with pytest.raises(OptionError, match=r"1\.5"):
        CaptionerReranker(loaded, weight=1.5)


def test_token_probabilities_come_on_request_and_add_up(loaded: Captioner) -> None:
    images = [picture(seed) for seed in range(3)]
    for method in ("beam", "greedy", "sample"):
        plain = loaded.caption(images, Search(method=method, max_tokens=5))
        asked = loaded.caption(images, Search(method=method, max_tokens=5, token_probs=True))
        for one, other in zip(plain, asked, strict=True):
            assert one.candidates[0].token_log_probs is None
            each = other.candidates[0].token_log_probs
            assert each is not None and len(each) == other.candidates[0].num_tokens
            assert one.text == other.text and sum(each) == same_log_prob(one.candidates[0].log_prob, len(each))
