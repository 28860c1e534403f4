"""neuraltalk2's search, compared with its own loops over images and beams."""

from __future__ import annotations

import pytest
import torch

from configs.errors import ConfigError
from configs.search import Search
from model.decoding import neuraltalk2_search
from model.decoding.neuraltalk2_search import beam_search, greedy_search
from model.decoding.search import generate
from model.errors import OptionError
from model.nn.decoder import Decoder
from model.vocabulary import END

B, V, E, H, D = 4, 11, 5, 6, 7


@pytest.fixture(params=range(3))
def decoder(request: pytest.FixtureRequest) -> Decoder:
    torch.manual_seed(request.param)
    decoder = Decoder(V, E, H, layers=2).double().eval()
    for parameter in decoder.parameters():
        parameter.data.mul_(4)
    return decoder


@pytest.fixture
def embeddings() -> torch.Tensor:
    return 3 * torch.randn(B, E, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def next_log_probs(decoder: Decoder, embedding: torch.Tensor, tokens: list[int]) -> list[float]:
    """Computes log-probabilities by teacher forcing, independently of the search; END is an ordinary token."""
    with torch.no_grad():
        logits = decoder(embedding[None], torch.tensor([tokens], dtype=torch.int64))
    return logits[0, -1].log_softmax(0).tolist()


def loops(decoder: Decoder, embedding: torch.Tensor, beams: int) -> list[tuple[list[int], float]]:
    """Implements LanguageModel.lua's sample_beam by loops."""
    live: list[tuple[list[int], float]] = [([], 0.0)] * beams
    done = []
    for step in range(D):
        candidates = []
        for tokens, total in live[:1] if step == 0 else live:
            said = next_log_probs(decoder, embedding, tokens)
            best = sorted(range(V), key=lambda token: -said[token])[:beams]
            candidates += [([*tokens, token], total + said[token]) for token in best]
        live = sorted(candidates, key=lambda candidate: -candidate[1])[:beams]
        done += [candidate for candidate in live if candidate[0][-1] == END or step == D - 1]
    return sorted(done, key=lambda candidate: -candidate[1])


@pytest.mark.parametrize("beams", [2, 3, V])
def test_beams_are_those_of_the_loops(decoder: Decoder, embeddings: torch.Tensor, beams: int) -> None:
    with torch.inference_mode():
        found = beam_search(decoder, decoder.initial_state(embeddings), beams=beams, length=D)
    for embedding, finished in zip(embeddings, found, strict=True):
        expected = loops(decoder, embedding, beams)
        assert [spoken.tokens for spoken in finished] == [tokens for tokens, _ in expected]
        assert [spoken.log_prob for spoken in finished] == pytest.approx([total for _, total in expected], abs=1e-4)


def test_greedy_goes_on_after_end(decoder: Decoder, embeddings: torch.Tensor) -> None:
    decoder.output.bias.data[END] += 8
    with torch.inference_mode():
        found = greedy_search(decoder, decoder.initial_state(embeddings), length=D)
    for embedding, spoken in zip(embeddings, found, strict=True):
        tokens: list[int] = []
        for _ in range(D):
            said = next_log_probs(decoder, embedding, tokens)
            tokens.append(max(range(V), key=lambda token: said[token]))
        assert spoken.tokens == tokens
        assert spoken.words == tokens[: tokens.index(END)]
    assert any(END in spoken.tokens[:-1] for spoken in found)


@pytest.mark.parametrize("beams", [1, 3])
def test_an_image_does_not_depend_on_its_batch(decoder: Decoder, embeddings: torch.Tensor, beams: int) -> None:
    with torch.inference_mode():
        together = neuraltalk2_search.search(decoder, decoder.initial_state(embeddings), beams=beams, length=D)
        for embedding, expected in zip(embeddings, together, strict=True):
            (alone,) = neuraltalk2_search.search(decoder, decoder.initial_state(embedding[None]), beams=beams, length=D)
            assert [spoken.tokens for spoken in alone] == [spoken.tokens for spoken in expected]


def test_a_caption_is_there_once(decoder: Decoder, embeddings: torch.Tensor) -> None:
    decoder.output.bias.data[END] += 4  # beams end early, and go on
    with torch.inference_mode():
        finished = beam_search(decoder, decoder.initial_state(embeddings), beams=3, length=D)
        found = neuraltalk2_search.search(decoder, decoder.initial_state(embeddings), beams=3, length=D)
    for all_of_them, distinct in zip(finished, found, strict=True):
        assert len(distinct) < len(all_of_them)
        assert distinct[0] == all_of_them[0]
        said = [tuple(spoken.words) for spoken in distinct]
        assert len(set(said)) == len(said)
        assert {tuple(spoken.words) for spoken in all_of_them} == set(said)


def test_the_search_gives_its_captions(decoder: Decoder, embeddings: torch.Tensor) -> None:
    search = Search(method="neuraltalk2", beam_size=3, num_candidates=2, max_tokens=D, length_penalty=0.7)
    with torch.inference_mode():
        expected = neuraltalk2_search.search(decoder, decoder.initial_state(embeddings), beams=3, length=D)
    for hypotheses, spoken in zip(generate(search, decoder, embeddings), expected, strict=True):
        assert [h.words for h in hypotheses] == [s.words for s in spoken[:2]]
        assert [h.log_prob for h in hypotheses] == pytest.approx([s.log_prob for s in spoken[:2]])
        assert [h.num_tokens for h in hypotheses] == [len(s.tokens) for s in spoken[:2]]


def test_greedy_is_a_beam_of_one_and_its_log_prob_ends_at_end(decoder: Decoder, embeddings: torch.Tensor) -> None:
    decoder.output.bias.data[END] += 8
    one = generate(Search(method="neuraltalk2", beam_size=1, max_tokens=D), decoder, embeddings)
    assert one == generate(Search(method="neuraltalk2", beam_size=1, max_tokens=D), decoder, embeddings)
    for embedding, (hypothesis,) in zip(embeddings, one, strict=True):
        total = 0.0
        for i, token in enumerate([*hypothesis.words, END]):
            total += next_log_probs(decoder, embedding, hypothesis.words[:i])[token] if i < D else 0.0
        assert hypothesis.log_prob == pytest.approx(total, abs=1e-4)


def test_a_caption_that_never_ends_counts_its_words_only(decoder: Decoder, embeddings: torch.Tensor) -> None:
    decoder.output.bias.data[END] -= 1000
    for (hypothesis,) in generate(Search(method="neuraltalk2", beam_size=3, max_tokens=D), decoder, embeddings):
        assert (len(hypothesis.words), hypothesis.num_tokens) == (D, D)
        assert hypothesis.log_prob > -500


def test_no_caption_is_longer_than_those_it_learnt_from(embeddings: torch.Tensor) -> None:
    torch.manual_seed(0)
    decoder = Decoder(V, E, H, max_tokens=3).double().eval()
    decoder.output.bias.data[END] -= 1000
    for most, expected in ((9, 3), (2, 2)):
        search = Search(method="neuraltalk2", beam_size=2, max_tokens=most)
        assert {len(found[0].words) for found in generate(search, decoder, embeddings)} == {expected}
    assert {len(found[0].words) for found in generate(Search(max_tokens=9), decoder, embeddings)} == {9}


def test_unk_may_be_said(embeddings: torch.Tensor) -> None:
    torch.manual_seed(0)
    decoder = Decoder(V, E, H).double().eval()
    decoder.output.bias.data[4] += 1000
    said = generate(Search(method="neuraltalk2", beam_size=2, max_tokens=3), decoder, embeddings, suppressed_ids=[4])
    assert {tuple(found[0].words) for found in said} == {(4, 4, 4)}


def test_more_beams_than_ids_are_refused(decoder: Decoder, embeddings: torch.Tensor) -> None:
    with pytest.raises(OptionError, match=f"beam_size is {V + 1}"):
        generate(Search(method="neuraltalk2", beam_size=V + 1), decoder, embeddings)


@pytest.mark.parametrize("options", [{"method": "best"}, {"method": "neuraltalk2", "min_tokens": 2}])
def test_an_option_out_of_range_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="method is"):
        Search(**options)  # type: ignore[arg-type]
