"""Ensembles, compared with all captions ranked by the mean of their probabilities."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from brute_force import all_captions, unruled
from conftest import picture
from tolerances import same_log_prob

from configs.search import Search
from model.captioner import Captioner, Ensemble, checkpoint
from model.captioner.ensemble import EnsembleDecoder, check_same_vocabulary
from model.decoding.search import Hypothesis, generate, generate_from_state
from model.decoding.sequence_log_probs import token_log_probs
from model.errors import OptionError, VocabularyError
from model.nn.decoder import Decoder
from model.nn.decoder_state import DecoderState
from model.vocabulary import END, Vocabulary

B, V, T = 3, 4, 3
WEIGHTS = [0.7, 0.3]
SEARCH = Search(beam_size=3, num_candidates=2, max_tokens=5)


def tiny(embedding_size: int, hidden_size: int, layers: int, seed: int) -> Decoder:
    torch.manual_seed(seed)
    decoder = Decoder(V, embedding_size, hidden_size, layers=layers, max_tokens=4 + seed).double().eval()
    for parameter in decoder.parameters():
        parameter.data.mul_(4)
    return decoder


@pytest.fixture
def decoders() -> list[Decoder]:
    return [tiny(5, 6, 1, 1), tiny(7, 3, 2, 2)]


@pytest.fixture
def embeddings() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(B, size, dtype=torch.float64, generator=generator) for size in (5, 7)]


def started(decoders: list[Decoder], embeddings: list[torch.Tensor]) -> DecoderState:
    with torch.inference_mode():
        return EnsembleDecoder.merge_states([d.initial_state(e) for d, e in zip(decoders, embeddings, strict=True)])


def mean_log_prob(decoders: list[Decoder], images: list[torch.Tensor], words: tuple[int, ...]) -> list[float]:
    """Returns the log of the weighted mean probability of each token, by teacher forcing."""
    given = torch.tensor([words], dtype=torch.int64)
    with torch.no_grad():
        each = [d(image[None], given).softmax(-1)[0, 1:] for d, image in zip(decoders, images, strict=True)]
    mean = sum(weight * probabilities for weight, probabilities in zip(WEIGHTS, each, strict=True))
    return [math.log(float(mean[i, word])) for i, word in enumerate((*words, END))]  # type: ignore[index]


@pytest.mark.parametrize("power", [0.0, 0.7])
def test_a_beam_of_full_width_is_exhaustive(
    decoders: list[Decoder], embeddings: list[torch.Tensor], power: float
) -> None:
    search = unruled(beam_size=200, max_tokens=T, num_candidates=7, length_penalty=power)
    found = generate_from_state(search, EnsembleDecoder(decoders, WEIGHTS), started(decoders, embeddings))
    for i in range(B):
        images = [each[i] for each in embeddings]
        captions = list(itertools.chain.from_iterable(itertools.product(range(1, V), repeat=n) for n in range(T + 1)))
        scored = {words: sum(mean_log_prob(decoders, images, words)) for words in captions}
        best = sorted(scored.items(), key=lambda item: -item[1] / (len(item[0]) + 1) ** power)[:7]
        assert [tuple(hypothesis.words) for hypothesis in found[i]] == [words for words, _ in best]
        assert [h.log_prob for h in found[i]] == pytest.approx([total for _, total in best], abs=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"beam_size": 4, "num_candidates": 3},
        {"method": "greedy"},
        {"method": "sample", "num_candidates": 5},
        {"method": "neuraltalk2", "beam_size": 3},
    ],
)
def test_an_ensemble_of_one_or_of_equals_is_itself(
    decoders: list[Decoder], embeddings: list[torch.Tensor], options: dict[str, Any]
) -> None:
    search = unruled(max_tokens=T, **options)
    expected = generate(search, decoders[0], embeddings[0])
    one = generate_from_state(search, EnsembleDecoder(decoders[:1]), started(decoders[:1], embeddings[:1]))
    assert one == expected
    twice = generate_from_state(
        search, EnsembleDecoder([decoders[0]] * 2, [3, 1]), started([decoders[0]] * 2, [embeddings[0]] * 2)
    )
    assert [[h.words for h in found] for found in twice] == [[h.words for h in found] for found in expected]


def test_only_the_ratios_of_weights_matter(decoders: list[Decoder], embeddings: list[torch.Tensor]) -> None:
    search, state = unruled(max_tokens=T), started(decoders, embeddings)
    one, other = (
        generate_from_state(search, EnsembleDecoder(decoders, weights), state) for weights in ([0.75, 0.25], [3, 1])
    )
    assert one == other
    assert one != generate_from_state(search, EnsembleDecoder(decoders, [1, 3]), state)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, math.nan], [math.inf, 1.0]])
def test_weights_that_are_none_are_refused(decoders: list[Decoder], weights: list[float]) -> None:
    with pytest.raises(OptionError, match="weights"):
        EnsembleDecoder(decoders, weights)


def test_tokens_are_scored_as_probable_as_they_are(decoders: list[Decoder], embeddings: list[torch.Tensor]) -> None:
    captions = [[(1, 2), ()], [(3,)], [(2, 2, 1), (1,), (3, 3)]]
    given = [[Hypothesis(list(words), 0.0) for words in some] for some in captions]
    given[0].append(Hypothesis([2, 1], 0.0, ended=False))
    with torch.inference_mode():
        found = token_log_probs(EnsembleDecoder(decoders, WEIGHTS), started(decoders, embeddings), given)
    captions[0].append((2, 1))
    for i in range(B):
        images = [each[i] for each in embeddings]
        for values, words, hypothesis in zip(found[i], captions[i], given[i], strict=True):
            expected = mean_log_prob(decoders, images, words)[: hypothesis.num_tokens]
            assert values == pytest.approx(expected, abs=1e-6)


def test_what_a_search_found_is_scored_as_it_said(decoders: list[Decoder], embeddings: list[torch.Tensor]) -> None:
    (decoder, _), (images, _) = decoders, embeddings
    found = generate(unruled(beam_size=200, max_tokens=T, num_candidates=40), decoder, images)
    with torch.inference_mode():
        each = token_log_probs(decoder, decoder.initial_state(images), found)
    for embedding, hypotheses, values in zip(images, found, each, strict=True):
        scored = all_captions(decoder, embedding, T)
        assert len(hypotheses) == len(values) == len(scored)
        for hypothesis, given in zip(hypotheses, values, strict=True):
            assert sum(given) == pytest.approx(scored[tuple(hypothesis.words)], abs=1e-5)


def test_each_captioner_looks_at_the_image_its_own_way(captioner: Path, second_captioner: Path) -> None:
    images = [picture(seed, 50, 70) for seed in range(4)]
    ensemble = Ensemble.load([captioner, second_captioner], weights=WEIGHTS, device="cpu")
    assert [view.image_size for view in ensemble.pixel_keys] == [64, 40]
    for image, caption in zip(images, ensemble.caption(images, SEARCH), strict=True):
        (alone,) = ensemble.caption([image], SEARCH)
        assert [c.text for c in alone.candidates] == [c.text for c in caption.candidates]
        total = 0.0
        for directory, weight in zip([captioner, second_captioner], WEIGHTS, strict=True):
            network, vocabulary, preprocessing = checkpoint.load(directory)
            words = vocabulary.encode(caption.text.split())
            pixels = torch.from_numpy(preprocessing.pixels(image).copy())
            with torch.no_grad():
                logits = network(torch.tensor([words]), images=preprocessing.normalize(pixels[None]))
            each = logits[0, 1:].softmax(-1)[range(len(words) + 1), [*words, END]]
            total = total + weight * each.double()
        assert caption.candidates[0].log_prob == same_log_prob(float(total.log().sum()), len(total))  # type: ignore[attr-defined, arg-type]


def test_captioners_that_see_alike_share_pixels(captioner: Path) -> None:
    ensemble = Ensemble.load([captioner, captioner], device="cpu")
    alone = Captioner.load(captioner, device="cpu")
    assert ensemble.pixel_keys == alone.pixel_keys
    images = [picture(seed) for seed in range(3)]
    assert [c.text for c in ensemble.caption(images, SEARCH)] == [c.text for c in alone.caption(images, SEARCH)]


def test_pixels_of_one_view_are_not_enough_for_two(captioner: Path, second_captioner: Path) -> None:
    ensemble = Ensemble.load([captioner, second_captioner], device="cpu")
    pixels = ensemble.pixel_keys[0].pixels(picture(1))[None]
    with pytest.raises(OptionError, match="2 different preprocessings"):
        ensemble.caption_pixels(pixels)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a", "dog", "horse"), "A and B have different vocabularies: id 3 is 'cat' and 'horse'"),
        (("a", "dog", "cat", "UNK"), "3 and 4 words"),
        (("dog", "a", "cat"), "id 1 is 'a' and 'dog'"),
    ],
)
def test_what_differs_between_vocabularies_is_named(words: tuple[str, ...], said: str) -> None:
    expected = Vocabulary(("a", "dog", "cat"))
    check_same_vocabulary({"A": expected, "C": Vocabulary(expected.words)})
    with pytest.raises(VocabularyError, match=said):
        check_same_vocabulary({"A": expected, "B": Vocabulary(words)})


def test_captioners_of_different_words_are_refused(captioner: Path, foreign_captioner: Path) -> None:
    with pytest.raises(VocabularyError, match=r"tiny and .*foreign .* id 2 is 'dog' and 'horse'"):
        Ensemble.load([captioner, foreign_captioner])
