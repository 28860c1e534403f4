"""CIDEr-D as a reward in training, and as a similarity of candidates.

Reported scores are computed by `pipeline/evaluation/metrics.py`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence

Tokens = Sequence[Hashable]
NGram = tuple[Hashable, ...]

MAX_NGRAM = 4
SIGMA = 6.0
SCALE = 10.0


class CiderD:
    """CIDEr-D (Vedantam et al., 2015) of one image at a time, fast enough for a reward.

    The values equal pycocoevalcap's, which recomputes the weights of all references for every caption.

    Args:
        references: tokens of each image's captions, from which the document frequencies are counted. Not kept.
    """

    def __init__(self, references: Iterable[Sequence[Tokens]]) -> None:
        images, frequency = 0, Counter[NGram]()
        for captions in references:
            images += 1
            frequency.update({ngram for tokens in captions for ngram in ngrams(tokens)})
        self._most = math.log(images)
        self._weight = {ngram: self._most - math.log(count) for ngram, count in frequency.items()}

    @classmethod
    def uniform(cls) -> CiderD:
        """Returns a CIDEr-D without document frequencies, in which all n-grams have the same weight."""
        similarity = cls([[]])
        similarity._most = 1.0  # the weight of n-grams that occur in no reference, which are all here
        return similarity

    def __call__(self, captions: Iterable[Tokens], references: Sequence[Tokens]) -> list[float]:
        """Returns CIDEr-D, in [0, 10], of each caption of an image against the image's references."""
        wanted = [self._vector(Counter(ngrams(tokens))) for tokens in references]
        found = (self._vector(Counter(ngrams(tokens))) for tokens in captions)
        return [SCALE * sum(_similarity(one, reference) for reference in wanted) / len(wanted) for one in found]

    def _vector(self, counts: Counter[NGram]) -> _Vector:
        weights = {ngram: count * self._weight.get(ngram, self._most) for ngram, count in counts.items()}
        squares = [0.0] * MAX_NGRAM
        for ngram, weight in weights.items():
            squares[len(ngram) - 1] += weight * weight
        pairs = sum(count for ngram, count in counts.items() if len(ngram) == 2)  # noqa: PLR2004
        return weights, [math.sqrt(square) for square in squares], pairs


_Vector = tuple[dict[NGram, float], list[float], int]
"""Weights of n-grams, their Euclidean norms by n, and the caption's length as CIDEr-D counts it: its bigrams."""


def ngrams(tokens: Tokens) -> Iterator[NGram]:
    """Yields all n-grams of 1 to 4 tokens."""
    for n in range(1, MAX_NGRAM + 1):
        for start in range(len(tokens) - n + 1):
            yield tuple(tokens[start : start + n])


def _similarity(caption: _Vector, reference: _Vector) -> float:
    """Returns the mean over n of the clipped cosine similarities, with a penalty for a different length."""
    dots = [0.0] * MAX_NGRAM
    theirs = reference[0]
    for ngram, weight in caption[0].items():
        other = theirs.get(ngram)
        if other:
            dots[len(ngram) - 1] += min(weight, other) * other
    cosines = sum(dot / (ours * other) for dot, ours, other in zip(dots, caption[1], reference[1], strict=True) if dot)
    return cosines / MAX_NGRAM * math.exp(-((caption[2] - reference[2]) ** 2) / (2 * SIGMA**2))
