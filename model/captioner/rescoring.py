"""Reranks candidates by the log-probability that another captioner, or an ensemble, assigns to them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from model.captioner.base import BaseCaptioner
from model.decoding.hypothesis import Hypothesis
from model.decoding.reranking import PixelsByKey
from model.decoding.sequence_log_probs import token_log_probs
from model.device import autocast
from model.errors import OptionError
from model.vision.preprocessing import Preprocessing


class CaptionerReranker:
    """A `Reranker`: the weighted mean of both captioners' scores, log_prob / num_tokens ** length_penalty.

    Args:
        captioner: the other captioner, with the same vocabulary as the one that searched.
        weight: weight of its score, in [0, 1]; the score of the search has the rest.
        length_penalty: as in `Search`.

    Raises OptionError for a weight out of range.
    """

    def __init__(self, captioner: BaseCaptioner, *, weight: float = 0.5, length_penalty: float = 0.7) -> None:
        if not 0.0 <= weight <= 1.0:
            raise OptionError(f"weight is {weight}; it must be in [0, 1]")
        self._captioner, self._weight, self._length_penalty = captioner, weight, length_penalty

    @property
    def pixel_keys(self) -> Sequence[Preprocessing]:
        """As `Reranker.pixel_keys`."""
        return self._captioner.pixel_keys

    def __call__(self, pixels: PixelsByKey, hypotheses: Sequence[Sequence[Hypothesis]]) -> list[list[float]]:
        """As `Reranker`."""
        with torch.inference_mode(), autocast(self._captioner.device, self._captioner.dtype):
            each = token_log_probs(self._captioner.decoder, self._captioner.initial_state(pixels), hypotheses)
        return [
            [self._mean(hypothesis, sum(values)) for hypothesis, values in zip(candidates, given, strict=True)]
            for candidates, given in zip(hypotheses, each, strict=True)
        ]

    def _mean(self, hypothesis: Hypothesis, log_prob: float) -> float:
        other = Hypothesis(hypothesis.words, log_prob, hypothesis.ended)
        own_score, other_score = hypothesis.score(self._length_penalty), other.score(self._length_penalty)
        return (1 - self._weight) * own_score + self._weight * other_score
