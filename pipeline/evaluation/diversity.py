"""Measures the diversity of captions: distinct words and phrases, novelty, incomplete endings.

It is computed from this project's own tokens and needs no Java.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from model.tokenizers import tokenize
from model.vocabulary import FORBIDDEN_FINAL_WORDS

Words = tuple[str, ...]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Diversity:
    """The diversity of the captions that have words; all shares are in [0, 1]."""

    captions: int
    distinct_captions: float
    """Share: distinct captions / captions."""
    div_1: float
    """Distinct words / words, of all captions together (Li et al., 2016; Shetty et al., 2017)."""
    div_2: float
    """Distinct bigrams / bigrams. Like div_1 it falls as captions get more: compare sets of one size."""
    vocabulary: int
    """Distinct words."""
    novel: float | None
    """Share of captions that are not among the known captions, word for word; None without known captions."""
    mean_words: float
    broken_endings: float
    """Share of captions that end in "a", "of", "with" and the like."""
    repeated_bigrams: float
    """Share of captions that contain a bigram twice."""


def tokenized_captions(captions: Iterable[str]) -> frozenset[Words]:
    """Returns captions in the form in which `diversity` compares them."""
    return frozenset(tuple(tokenize(caption)) for caption in captions)


def diversity(captions: Iterable[str], known: frozenset[Words] | None = None) -> Diversity:
    """Computes the diversity of captions, without those that have no words.

    Args:
        captions: one caption per image.
        known: captions that do not count as novel, usually those of the training split.
    """
    token_lists = [words for caption in captions if (words := tuple(tokenize(caption)))]
    bigrams = [list(pairwise(words)) for words in token_lists]
    tokens = [word for one in token_lists for word in one]
    return Diversity(
        captions=len(token_lists),
        distinct_captions=_distinct(token_lists),
        div_1=_distinct(tokens),
        div_2=_distinct([bigram for one in bigrams for bigram in one]),
        vocabulary=len(set(tokens)),
        novel=None if known is None else _share(one not in known for one in token_lists),
        mean_words=len(tokens) / max(1, len(token_lists)),
        broken_endings=_share(one[-1] in FORBIDDEN_FINAL_WORDS for one in token_lists),
        repeated_bigrams=_share(len(set(one)) < len(one) for one in bigrams),
    )


def _distinct(items: list[Item]) -> float:
    return len(set(items)) / max(1, len(items))


def _share(flags: Iterable[bool]) -> float:
    found = list(flags)
    return sum(found) / max(1, len(found))
