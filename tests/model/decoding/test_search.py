"""The search, compared with brute force on a vocabulary of three words."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch
from brute_force import all_captions, log_prob, unruled

from configs.errors import ConfigError
from configs.search import Search
from model.decoding.search import Hypothesis, generate
from model.nn.decoder import Decoder, DecoderState
from model.vocabulary import END

B, V, E, H, T = 3, 4, 5, 6, 3


class Counting(Decoder):
    """A decoder that records the number of captions in each step."""

    def __init__(self, *args: int) -> None:
        super().__init__(*args)
        self.rows: list[int] = []

    def step(self, words: torch.Tensor, state: DecoderState) -> tuple[torch.Tensor, DecoderState]:
        self.rows.append(len(words))
        return super().step(words, state)


@pytest.fixture
def decoder() -> Counting:
    torch.manual_seed(6)
    decoder = Counting(V, E, H).double().eval()
    for parameter in decoder.parameters():
        parameter.data.mul_(4)  # so that captions differ
    decoder.embedding.weight.data.mul_(10)
    return decoder


@pytest.fixture
def embeddings() -> torch.Tensor:
    return torch.randn(B, E, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def as_pairs(found: list[Hypothesis]) -> list[tuple[tuple[int, ...], float]]:
    return [(tuple(hypothesis.words), hypothesis.log_prob) for hypothesis in found]


@pytest.mark.parametrize("power", [0.0, 0.7])
def test_beam_of_full_width_is_exhaustive(decoder: Counting, embeddings: torch.Tensor, power: float) -> None:
    search = unruled(beam_size=200, max_tokens=T, num_candidates=7, length_penalty=power)
    for embedding, found in zip(embeddings, generate(search, decoder, embeddings), strict=True):
        scored = all_captions(decoder, embedding, T)
        best = sorted(scored.items(), key=lambda item: -item[1] / (len(item[0]) + 1) ** power)[:7]
        assert [words for words, _ in as_pairs(found)] == [words for words, _ in best]
        assert [total for _, total in as_pairs(found)] == pytest.approx([total for _, total in best], abs=1e-10)


@pytest.mark.parametrize("power", [0.0, 0.7])
def test_narrow_beam_keeps_the_best_of_each_step(power: float) -> None:
    torch.manual_seed(3)
    decoder, beams, longest = Decoder(11, E, H, layers=2).double().eval(), 3, 7
    for parameter in decoder.parameters():
        parameter.data.mul_(5)
    embeddings = torch.randn(B, E, dtype=torch.float64)
    search = unruled(beam_size=beams, max_tokens=longest, num_candidates=2, length_penalty=power)
    for embedding, found in zip(embeddings, generate(search, decoder, embeddings), strict=True):
        beam: list[tuple[tuple[int, ...], bool, float]] = [((), False, 0.0)]  # words, whether END was said, log_prob
        while not all(ended for _, ended, _ in beam):
            grown = [caption for caption in beam if caption[1]]
            for words, _, total in (caption for caption in beam if not caption[1]):
                with torch.no_grad():
                    logits = decoder(embedding[None], torch.tensor([words], dtype=torch.int64))
                said = logits[0, -1].log_softmax(0).tolist()
                grown.append((words, True, total + said[END]))
                if len(words) < longest:
                    grown += [((*words, word), False, total + said[word]) for word in range(1, 11)]
            beam = sorted(grown, key=lambda c: -c[2] / (len(c[0]) + c[1]) ** power)[:beams]
        assert [words for words, _ in as_pairs(found)] == [words for words, _, _ in beam[:2]]


def test_beam_of_one_is_greedy(decoder: Counting, embeddings: torch.Tensor) -> None:
    for embedding, found in zip(
        embeddings, generate(unruled(beam_size=1, max_tokens=T), decoder, embeddings), strict=True
    ):
        words: list[int] = []
        while len(words) < T:
            with torch.no_grad():
                logits = decoder(embedding[None], torch.tensor([words], dtype=torch.int64))
            if (word := int(logits[0, len(words) + 1].argmax())) == END:
                break
            words.append(word)
        assert found[0].words == words
        assert found[0].log_prob == pytest.approx(log_prob(decoder, embedding, tuple(words)), abs=1e-10)


def test_greedy_is_beam_of_one(decoder: Counting, embeddings: torch.Tensor) -> None:
    beam = generate(unruled(beam_size=1, max_tokens=T), decoder, embeddings)
    assert generate(unruled(method="greedy", max_tokens=T), decoder, embeddings) == beam


@pytest.mark.parametrize(
    "search",
    [
        unruled(beam_size=3, max_tokens=T, num_candidates=2),
        unruled(method="greedy", max_tokens=T),
        unruled(method="sample", max_tokens=T, num_candidates=4, seed=5),
    ],
    ids=lambda search: search.method,
)
def test_a_caption_does_not_depend_on_its_batch(decoder: Counting, embeddings: torch.Tensor, search: Search) -> None:
    seeds = torch.tensor([11, 12, 13])
    together = generate(search, decoder, embeddings, image_seeds=seeds)
    for i in range(B):
        (alone,) = generate(search, decoder, embeddings[i : i + 1], image_seeds=seeds[i : i + 1])
        assert [words for words, _ in as_pairs(alone)] == [words for words, _ in as_pairs(together[i])]
        assert [p for _, p in as_pairs(alone)] == pytest.approx([p for _, p in as_pairs(together[i])], abs=1e-6)


def test_finished_captions_cost_nothing(decoder: Counting, embeddings: torch.Tensor) -> None:
    found = generate(unruled(method="sample", max_tokens=T, num_candidates=9, seed=1), decoder, embeddings)
    lengths = [hypothesis.num_tokens for group in found for hypothesis in group]
    assert decoder.rows == [sum(length > step for length in lengths) for step in range(max(lengths))]
    assert decoder.rows[-1] < decoder.rows[0] == B * 9


@pytest.mark.parametrize(("candidates", "power"), [(2, 0.0), (1, 0.7)])
def test_an_image_whose_beams_ended_costs_nothing(decoder: Counting, candidates: int, power: float) -> None:
    search = unruled(beam_size=2, max_tokens=9, num_candidates=candidates, length_penalty=power)
    embeddings = 9 * torch.randn(8, E, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    generate(search, decoder, embeddings)
    together, alone = decoder.rows, list[list[int]]()
    for embedding in embeddings:
        decoder.rows = []
        generate(search, decoder, embedding[None])
        alone.append(decoder.rows)
    assert together == [sum(rows) for rows in itertools.zip_longest(*alone, fillvalue=0)]
    assert together[0] == 8  # the beams of an image begin as one
    assert len({len(rows) for rows in alone}) > 1


def test_beams_that_ended_cost_nothing(decoder: Counting, embeddings: torch.Tensor) -> None:
    decoder.output.bias.data[END] += 100
    generate(unruled(beam_size=4, max_tokens=T), decoder, embeddings)
    assert decoder.rows == [B]


def test_log_prob_and_num_tokens_are_those_of_the_words(decoder: Counting, embeddings: torch.Tensor) -> None:
    for search in (unruled(beam_size=4, max_tokens=T, num_candidates=4), unruled(method="sample", max_tokens=T)):
        for embedding, found in zip(embeddings, generate(search, decoder, embeddings), strict=True):
            for hypothesis in found:
                assert hypothesis.num_tokens == len(hypothesis.words) + 1 <= T + 1
                expected = log_prob(decoder, embedding, tuple(hypothesis.words))
                assert hypothesis.log_prob == pytest.approx(expected, abs=1e-5)


def test_samples_are_as_frequent_as_probable(decoder: Counting, embeddings: torch.Tensor) -> None:
    drawn = 4000
    search = unruled(method="sample", max_tokens=T, num_candidates=drawn)
    (found,) = generate(search, decoder, embeddings[:1], image_seeds=torch.tensor([7]))
    seen = Counter(tuple(hypothesis.words) for hypothesis in found)
    for words, total in all_captions(decoder, embeddings[0], T).items():
        if len(words) < T:  # at the limit END is forced, so longer captions gather there
            expected = drawn * math.exp(total)
            assert abs(seen[words] - expected) < 5 * math.sqrt(expected) + 1


@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-6}])
def test_sampling_from_the_best_word_only_is_greedy(
    decoder: Counting, embeddings: torch.Tensor, options: dict[str, float]
) -> None:
    sampled = generate(unruled(method="sample", max_tokens=T, **options), decoder, embeddings)  # type: ignore[arg-type]
    greedy = generate(unruled(method="greedy", max_tokens=T), decoder, embeddings)
    assert [group[0].words for group in sampled] == [group[0].words for group in greedy]


def test_samples_of_an_image_are_independent(decoder: Counting, embeddings: torch.Tensor) -> None:
    decoder.output.weight.data.zero_()
    decoder.output.bias.data = torch.tensor([-99.0, 0.0, 0.0, 0.0], dtype=torch.float64)  # all captions as probable
    (found,) = generate(unruled(method="sample", max_tokens=T, num_candidates=900), decoder, embeddings[:1])
    words = torch.tensor([hypothesis.words for hypothesis in found])  # (900, T), in the order they were drawn
    assert float((words[:-1, 1] == words[1:, 0]).double().mean()) == pytest.approx(1 / 3, abs=0.07)
    assert float((words[:-1] == words[1:]).double().mean()) == pytest.approx(1 / 3, abs=0.07)


def test_top_k_and_top_p_bound_what_is_drawn(decoder: Counting, embeddings: torch.Tensor) -> None:
    decoder.output.weight.data.zero_()
    decoder.output.bias.data = torch.tensor([0.1, 0.5, 0.25, 0.15], dtype=torch.float64).log()
    for options, drawable in (
        ({"top_k": 2}, {1, 2}),
        ({"top_p": 0.7}, {1, 2}),
        ({"top_p": 0.8}, {1, 2, 3}),
        ({"top_k": 3, "top_p": 0.5}, {1}),
        ({}, {END, 1, 2, 3}),
    ):
        search = unruled(method="sample", max_tokens=1, num_candidates=200, **options)  # type: ignore[arg-type]
        (found,) = generate(search, decoder, embeddings[:1])
        assert {hypothesis.words[0] if hypothesis.words else END for hypothesis in found} == drawable


def test_temperature_raises_probabilities_to_its_inverse(decoder: Counting, embeddings: torch.Tensor) -> None:
    decoder.output.weight.data.zero_()
    decoder.output.bias.data = torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=torch.float64).log()
    drawn = 4000
    search = unruled(method="sample", max_tokens=1, num_candidates=drawn, temperature=0.5)
    (found,) = generate(search, decoder, embeddings[:1])
    seen = Counter(hypothesis.words[0] if hypothesis.words else END for hypothesis in found)
    expected = {word: drawn * p**2 / 0.3 for word, p in enumerate([0.1, 0.4, 0.3, 0.2])}
    chi_square = sum((seen[word] - count) ** 2 / count for word, count in expected.items())
    assert chi_square < 16.3  # one in a thousand, of 3 degrees of freedom


def test_unsayable_words_are_not_said(decoder: Counting, embeddings: torch.Tensor) -> None:
    search = unruled(beam_size=200, max_tokens=T, num_candidates=5, length_penalty=0)
    for embedding, found in zip(embeddings, generate(search, decoder, embeddings, suppressed_ids=[2]), strict=True):
        scored = {words: total for words, total in all_captions(decoder, embedding, T).items() if 2 not in words}
        best = sorted(scored.items(), key=lambda item: -item[1])[:5]
        assert [words for words, _ in as_pairs(found)] == [words for words, _ in best]
        assert [total for _, total in as_pairs(found)] == pytest.approx([total for _, total in best], abs=1e-10)


def test_unsayable_words_are_not_drawn(decoder: Counting, embeddings: torch.Tensor) -> None:
    search = unruled(method="sample", max_tokens=T, num_candidates=100)
    drawn = [
        word for found in generate(search, decoder, embeddings, suppressed_ids=[1]) for h in found for word in h.words
    ]
    assert set(drawn) == {2, 3}


def test_no_caption_is_longer_than_max_tokens(decoder: Counting, embeddings: torch.Tensor) -> None:
    decoder.output.bias.data[END] -= 1000
    for search in (
        unruled(beam_size=3, max_tokens=T, num_candidates=3),
        unruled(method="greedy", max_tokens=T),
        unruled(method="sample", max_tokens=T),
    ):
        for found in generate(search, decoder, embeddings):
            assert {len(hypothesis.words) for hypothesis in found} == {T}


def test_another_seed_gives_other_samples(decoder: Counting, embeddings: torch.Tensor) -> None:
    one, two = (
        generate(unruled(method="sample", max_tokens=T, num_candidates=20, seed=s), decoder, embeddings) for s in (1, 2)
    )
    assert one != two


@pytest.mark.parametrize(
    "options",
    [
        {"method": "best"},
        {"beam_size": 0},
        {"max_tokens": 0},
        {"num_candidates": 0},
        {"beam_size": 2, "num_candidates": 3},
        {"method": "greedy", "num_candidates": 2},
        {"length_penalty": -0.1},
        {"temperature": 0.0},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_tokens": -1},
        {"min_tokens": 5, "max_tokens": 4},
        {"no_repeat_ngram_size": -1},
        {"num_beam_groups": 0},
        {"num_beam_groups": 2, "beam_size": 5},
        {"num_beam_groups": 5, "method": "greedy"},
        {"diversity_penalty": -0.1},
        {"method": "neuraltalk2", "no_bad_endings": True},
        {"method": "neuraltalk2", "num_beam_groups": 5},
        {"method": "neuraltalk2", "no_repeat_ngram_size": 3},
    ],
)
def test_an_option_out_of_range_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Search(**options)  # type: ignore[arg-type]
