"""Enumerates all captions that a tiny decoder can generate, with their probabilities."""

from __future__ import annotations

import itertools
from functools import partial

import torch

from configs.search import Search
from model.nn.decoder import Decoder
from model.vocabulary import END

unruled = partial(Search, no_repeat_ngram_size=0)
"""A search that may say whatever the decoder can, as those here do."""


def log_prob(decoder: Decoder, embedding: torch.Tensor, words: tuple[int, ...]) -> float:
    """Computes the log-probability by teacher forcing, independently of the search."""
    with torch.no_grad():
        log_probs = decoder(embedding[None], torch.tensor([words], dtype=torch.int64)).log_softmax(-1)[0, 1:]
    return sum(float(log_probs[i, word]) for i, word in enumerate((*words, END)))


def all_captions(decoder: Decoder, embedding: torch.Tensor, longest: int) -> dict[tuple[int, ...], float]:
    words = range(1, decoder.vocabulary_size)
    captions = itertools.chain.from_iterable(itertools.product(words, repeat=n) for n in range(longest + 1))
    return {said: log_prob(decoder, embedding, said) for said in captions}
