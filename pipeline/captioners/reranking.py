"""Builds the reranker of candidates from its options."""

from __future__ import annotations

from collections.abc import Sequence

from configs.rerank import Rerank
from configs.search import Search
from model.captioner.rescoring import CaptionerReranker
from model.decoding.hypothesis import Hypothesis
from model.decoding.reranking import PixelsByKey, Reranker
from model.vision.preprocessing import Preprocessing
from pipeline.captioners import captioner_store
from pipeline.evaluation.cider import CiderD


class Consensus:
    """A `Reranker`: the mean CIDEr-D of a caption against the image's other candidates.

    It looks for the caption of least expected loss, not the most probable one: minimum Bayes risk (Kumar and Byrne,
    2004). All words weigh the same, for what is common is a matter of more captions than an image has.
    """

    pixel_keys: Sequence[Preprocessing] = ()

    def __init__(self) -> None:
        self._similarity = CiderD.uniform()

    def __call__(self, pixels: PixelsByKey, hypotheses: Sequence[Sequence[Hypothesis]]) -> list[list[float]]:
        """As `Reranker`."""
        return [self._scores([hypothesis.words for hypothesis in candidates]) for candidates in hypotheses]

    def _scores(self, captions: list[list[int]]) -> list[float]:
        if len(captions) == 1:
            return [0.0]
        return [
            self._similarity([caption], [*captions[:i], *captions[i + 1 :]])[0] for i, caption in enumerate(captions)
        ]


def build_reranker(rerank: Rerank, search: Search, *, device: str, dtype: str) -> Reranker | None:
    """Builds the reranker that `rerank` names, or returns None for the search's own order.

    Args:
        device, dtype: as for `Captioner.load`.
    """
    if rerank.by == "consensus":
        return Consensus()
    if rerank.by == "captioner":
        other = captioner_store.load([rerank.captioner], device=device, dtype=dtype)
        return CaptionerReranker(other, weight=rerank.weight, length_penalty=search.length_penalty)
    return None
