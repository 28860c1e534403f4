"""Candidates in the order of what another captioner, or an ensemble, thinks of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from model.captioner.base import Captioning
from model.decoding.hypothesis import Hypothesis
from model.decoding.reranking import Views
from model.decoding.sequence_log_probs import token_log_probs
from model.device import autocast
from model.errors import OptionError
from model.vision.preprocessing import Preprocessing


class Rescoring:
    """A `Scorer`: the weighted mean of two scores, log_prob / num_tokens ** length_normalization of either captioner.

    Args:
        captioner: the other one, of the vocabulary of the one that spoke.
        weight: of its score, in [0, 1]; the rest is that of the one that spoke.
        length_normalization: as `Search` has it.

    Raises OptionError for a weight out of range.
    """

    def __init__(self, captioner: Captioning, *, weight: float = 0.5, length_normalization: float = 0.7) -> None:
        if not 0.0 <= weight <= 1.0:
            raise OptionError(f"weight is {weight}; it must be in [0, 1]")
        self._captioner, self._weight, self._length_normalization = captioner, weight, length_normalization

    @property
    def views(self) -> Sequence[Preprocessing]:
        """As `Scorer.views`."""
        return self._captioner.views

    def __call__(self, views: Views, found: Sequence[Sequence[Hypothesis]]) -> list[list[float]]:
        """As `Scorer`."""
        with torch.inference_mode(), autocast(self._captioner.device, self._captioner.dtype):
            each = token_log_probs(self._captioner.speaker, self._captioner.start(views), found)
        return [
            [self._mean(hypothesis, sum(values)) for hypothesis, values in zip(hypotheses, given, strict=True)]
            for hypotheses, given in zip(found, each, strict=True)
        ]

    def _mean(self, hypothesis: Hypothesis, log_prob: float) -> float:
        power = self._length_normalization
        theirs = Hypothesis(hypothesis.words, log_prob, hypothesis.ended).score(power)
        return (1 - self._weight) * hypothesis.score(power) + self._weight * theirs
