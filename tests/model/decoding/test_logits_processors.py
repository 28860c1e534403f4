"""Rules of a search, compared with the filtered list of all captions of three words."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from brute_force import all_captions, log_prob, unruled

from configs.search import Search
from model.decoding.search import Hypothesis, generate
from model.nn.decoder import Decoder
from model.vocabulary import Vocabulary

B, V, E, H, T = 3, 4, 5, 6, 4
ENDINGS = [2]

RULES: list[dict[str, Any]] = [
    {"no_immediate_repeat": True},
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 3},
    {"no_bad_endings": True},
    {"min_tokens": 2},
    {"min_tokens": 4, "no_immediate_repeat": True, "no_bad_endings": True},
    {"min_tokens": 1, "no_repeat_ngram_size": 2, "no_bad_endings": True},
]


def keeps(words: tuple[int, ...], rules: dict[str, Any]) -> bool:
    """Returns whether a complete caption obeys the rules."""
    n = rules.get("no_repeat_ngram_size", 0)
    ngrams = [words[i : i + n] for i in range(len(words) - n + 1)] if n else []
    return (
        len(set(ngrams)) == len(ngrams)
        and not (rules.get("no_immediate_repeat") and any(a == b for a, b in itertools.pairwise(words)))
        and not (rules.get("no_bad_endings") and words[-1:] == (ENDINGS[0],))
        and len(words) >= rules.get("min_tokens", 0)
    )


def tiny(size: int = V, seed: int = 6) -> Decoder:
    torch.manual_seed(seed)
    decoder = Decoder(size, E, H).double().eval()
    for parameter in decoder.parameters():
        parameter.data.mul_(4)  # so that captions differ
    decoder.embedding.weight.data.mul_(10)
    return decoder


@pytest.fixture
def embeddings() -> torch.Tensor:
    return torch.randn(B, E, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_a_beam_of_full_width_finds_the_best_that_obey(rules: dict[str, Any], embeddings: torch.Tensor) -> None:
    decoder, changed = tiny(), 0
    plain = unruled(beam_size=500, max_tokens=T, num_candidates=9)
    search = unruled(beam_size=500, max_tokens=T, num_candidates=9, **rules)
    for embedding, found, free in zip(
        embeddings,
        generate(search, decoder, embeddings, forbidden_final_ids=ENDINGS),
        generate(plain, decoder, embeddings),
        strict=True,
    ):
        scored = {words: p for words, p in all_captions(decoder, embedding, T).items() if keeps(words, rules)}
        best = sorted(scored.items(), key=lambda item: -item[1] / (len(item[0]) + 1) ** 0.7)[:9]
        assert [tuple(hypothesis.words) for hypothesis in found] == [words for words, _ in best]
        assert [hypothesis.log_prob for hypothesis in found] == pytest.approx([p for _, p in best], abs=1e-10)
        changed += found != free
    assert changed  # the rule had something to forbid


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize(
    "method", [{"beam_size": 3, "num_candidates": 3}, {"method": "greedy"}, {"method": "sample", "num_candidates": 40}]
)
def test_whatever_is_found_obeys(rules: dict[str, Any], method: dict[str, Any], embeddings: torch.Tensor) -> None:
    decoder = tiny()
    for embedding, found in zip(
        embeddings,
        generate(unruled(max_tokens=T, **method, **rules), decoder, embeddings, forbidden_final_ids=ENDINGS),
        strict=True,
    ):
        assert found
        for hypothesis in found:
            assert keeps(tuple(hypothesis.words), rules)
            expected = log_prob(decoder, embedding, tuple(hypothesis.words))
            assert hypothesis.log_prob == pytest.approx(expected, abs=1e-5)


def test_a_caption_does_not_depend_on_its_batch_under_rules(embeddings: torch.Tensor) -> None:
    decoder = tiny(11)
    search = Search(
        beam_size=3,
        num_candidates=2,
        max_tokens=9,
        no_repeat_ngram_size=2,
        no_immediate_repeat=True,
        no_bad_endings=True,
        min_tokens=3,
    )
    together = generate(search, decoder, embeddings, forbidden_final_ids=[2, 7])
    for i, expected in enumerate(together):
        (alone,) = generate(search, decoder, embeddings[i : i + 1], forbidden_final_ids=[2, 7])
        assert [hypothesis.words for hypothesis in alone] == [hypothesis.words for hypothesis in expected]


@pytest.mark.parametrize("method", ["beam", "greedy", "sample"])
def test_where_no_word_is_left_the_caption_ends(method: Any, embeddings: torch.Tensor) -> None:
    decoder = tiny()
    decoder.output.bias.data[0] -= 1000  # END comes last
    search = Search(method=method, max_tokens=9, no_repeat_ngram_size=1, min_tokens=9, no_bad_endings=True)
    for found in generate(search, decoder, embeddings, forbidden_final_ids=[1, 2, 3]):
        assert sorted(found[0].words) == [1, 2, 3]


def test_no_two_words_come_twice_unless_they_may(embeddings: torch.Tensor) -> None:
    def repeat(found: list[list[Hypothesis]]) -> list[bool]:
        bigrams = [list(itertools.pairwise(hypotheses[0].words)) for hypotheses in found]
        return [len(set(said)) < len(said) for said in bigrams]

    decoder = tiny()
    decoder.output.bias.data[0] -= 1000  # END comes last
    assert all(repeat(generate(unruled(max_tokens=9), decoder, embeddings)))
    assert not any(repeat(generate(Search(max_tokens=9), decoder, embeddings)))


def test_endings_are_only_minded_if_asked_to(embeddings: torch.Tensor) -> None:
    search = Search(max_tokens=T)
    assert generate(search, tiny(), embeddings, forbidden_final_ids=ENDINGS) == generate(search, tiny(), embeddings)


def test_bad_endings_are_found_by_word() -> None:
    vocabulary = Vocabulary(("dog", "the", "with", "theme", "UNK", "a"))
    assert sorted(vocabulary.forbidden_final_ids) == [2, 3, 6]
