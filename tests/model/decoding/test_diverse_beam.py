"""Diverse beam search, compared with loops written from the paper."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from brute_force import unruled

from model.decoding.search import generate
from model.nn.decoder import Decoder
from model.vocabulary import END

B, V, E, H, T = 4, 11, 5, 6, 7
K, G, POWER = 6, 3, 0.7

Beam = tuple[tuple[int, ...], bool, float]
"""Words, whether END was said, log-probability."""


@pytest.fixture
def decoder() -> Decoder:
    torch.manual_seed(3)
    decoder = Decoder(V, E, H, layers=2).double().eval()
    for parameter in decoder.parameters():
        parameter.data.mul_(5)
    return decoder


@pytest.fixture
def embeddings() -> torch.Tensor:
    return torch.randn(B, E, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def score(beam: Beam) -> float:
    words, ended, total = beam
    return total / (len(words) + ended) ** POWER


def advanced(decoder: Decoder, embedding: torch.Tensor, group: list[Beam], said: Counter[int], strength: float) -> None:
    """Advances a group by one step, and records the chosen words."""
    grown: list[tuple[float, Beam, int | None]] = [(score(beam), beam, None) for beam in group if beam[1]]
    for words, ended, total in group:
        if ended:
            continue
        with torch.no_grad():
            logits = decoder(embedding[None], torch.tensor([words], dtype=torch.int64))
        for word, p in enumerate(logits[0, -1].log_softmax(0).tolist()):
            if word != END and len(words) == T:
                continue
            beam = (words, True, total + p) if word == END else ((*words, word), False, total + p)
            grown.append((score(beam) - strength * said[word], beam, word))
    grown.sort(key=lambda one: -one[0])
    group[:] = [beam for _, beam, _ in grown[: K // G]]
    said.update(word for _, _, word in grown[: K // G] if word is not None)


@pytest.mark.parametrize("strength", [0.2, 3.0])
def test_groups_avoid_what_those_before_them_just_said(
    decoder: Decoder, embeddings: torch.Tensor, strength: float
) -> None:
    search = unruled(
        beam_size=K, num_beam_groups=G, diversity_penalty=strength, num_candidates=K, max_tokens=T, length_penalty=POWER
    )
    for embedding, found in zip(embeddings, generate(search, decoder, embeddings), strict=True):
        groups: list[list[Beam]] = [[((), False, 0.0)] for _ in range(G)]
        for _ in range(T + 1):
            said = Counter[int]()
            for group in groups:
                advanced(decoder, embedding, group, said, strength)
        ranked = [sorted(group, key=score, reverse=True) for group in groups]
        ordered = [beam for rank in zip(*ranked, strict=True) for beam in sorted(rank, key=score, reverse=True)]
        assert [tuple(hypothesis.words) for hypothesis in found] == list(
            dict.fromkeys(words for words, _, _ in ordered)
        )


def test_groups_that_need_not_differ_say_the_same(decoder: Decoder, embeddings: torch.Tensor) -> None:
    apart = generate(
        unruled(beam_size=K, num_beam_groups=G, diversity_penalty=0.0, num_candidates=K, max_tokens=T),
        decoder,
        embeddings,
    )
    one = generate(unruled(beam_size=K // G, num_candidates=K // G, max_tokens=T), decoder, embeddings)
    assert [[h.words for h in found] for found in apart] == [[h.words for h in found] for found in one]


def test_more_diversity_gives_more_first_words(decoder: Decoder, embeddings: torch.Tensor) -> None:
    firsts = []
    for strength in (0.0, 100.0):
        search = unruled(beam_size=G, num_beam_groups=G, diversity_penalty=strength, num_candidates=G, max_tokens=T)
        firsts.append([len({tuple(h.words[:1]) for h in found}) for found in generate(search, decoder, embeddings)])
    assert firsts[0] == [1] * B and firsts[1] == [G] * B


def test_a_caption_of_a_group_does_not_depend_on_its_batch(decoder: Decoder, embeddings: torch.Tensor) -> None:
    search = unruled(beam_size=K, num_beam_groups=G, num_candidates=4, max_tokens=T)
    for i, expected in enumerate(generate(search, decoder, embeddings)):
        (alone,) = generate(search, decoder, embeddings[i : i + 1])
        assert [h.words for h in alone] == [h.words for h in expected]
