"""What a search finds."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Hypothesis:
    """A finished caption."""

    words: list[int]
    """Ids, without END."""
    log_prob: float
    """Sum of the natural-log probabilities of its words and END."""
    ended: bool = True
    """Whether END was said; only neuraltalk2's search may do without."""

    @property
    def num_tokens(self) -> int:
        """Tokens that `log_prob` sums over."""
        return len(self.words) + self.ended

    def score(self, length_normalization: float) -> float:
        """What captions are ranked by."""
        return self.log_prob / math.pow(self.num_tokens, length_normalization)
