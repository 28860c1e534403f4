"""A finished caption as decoding algorithms return it."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Hypothesis:
    """A finished caption of an image."""

    words: list[int]
    """Word ids, without END."""
    log_prob: float
    """Sum of the natural-log probabilities of the words and of END."""
    ended: bool = True
    """Whether END was generated; False only in neuraltalk2's search, at the length limit."""

    @property
    def num_tokens(self) -> int:
        """Number of tokens that `log_prob` sums over."""
        return len(self.words) + self.ended

    def score(self, length_penalty: float) -> float:
        """Returns log_prob / num_tokens ** length_penalty, by which captions are ranked."""
        return self.log_prob / math.pow(self.num_tokens, length_penalty)
