"""Reorders the candidates that a search found, by the scores of a reranker.

Letters: B images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from model.decoding.hypothesis import Hypothesis
from model.vision.preprocessing import Pixels, Preprocessing

PixelsByKey = Mapping[Preprocessing, Pixels]
"""The same B images as each of several preprocessings yields them, keyed by `Preprocessing.pixel_key`.

Each value is (B, image_size, image_size, 3) uint8.
"""


class Reranker(Protocol):
    """Scores candidates, to rank them anew. An image's scores must not depend on the other images of the batch."""

    @property
    def pixel_keys(self) -> Sequence[Preprocessing]:
        """The pixel keys of the images it needs; empty if it needs the captions only."""

    def __call__(self, pixels: PixelsByKey, hypotheses: Sequence[Sequence[Hypothesis]]) -> list[list[float]]:
        """Returns a score for each candidate of each of B images; higher is better."""


def rerank(hypotheses: Sequence[Sequence[Hypothesis]], scores: Sequence[Sequence[float]]) -> list[list[Hypothesis]]:
    """Sorts the candidates of each image by descending score; those of equal score keep their order."""
    return [
        [candidates[i] for i in sorted(range(len(candidates)), key=given.__getitem__, reverse=True)]
        for candidates, given in zip(hypotheses, scores, strict=True)
    ]
