"""Another order for the candidates that a search found.

Letters: B images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from model.decoding.hypothesis import Hypothesis
from model.vision.preprocessing import Pixels, Preprocessing

Views = Mapping[Preprocessing, Pixels]
"""Images as each of several preprocessings sees them (`Preprocessing.view`): (B, image_size, image_size, 3) uint8."""


class Scorer(Protocol):
    """Says how good candidates are. Those of an image are scored by themselves: neighbours must not matter."""

    @property
    def views(self) -> Sequence[Preprocessing]:
        """The ways in which it looks at an image; none where it only reads."""

    def __call__(self, views: Views, found: Sequence[Sequence[Hypothesis]]) -> list[list[float]]:
        """A score for each candidate of each of B images; the greatest is the best."""


def reranked(found: Sequence[Sequence[Hypothesis]], scores: Sequence[Sequence[float]]) -> list[list[Hypothesis]]:
    """The candidates of each image by their scores; those of equal score stay as they were."""
    return [
        [hypotheses[i] for i in sorted(range(len(hypotheses)), key=given.__getitem__, reverse=True)]
        for hypotheses, given in zip(found, scores, strict=True)
    ]
