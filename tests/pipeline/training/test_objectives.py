"""The batches of training objectives."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from test_data_loader import CAPTIONS, members, shard, tar_bytes

from model.nn.captioning_network import Architecture, Network
from model.vocabulary import END, Vocabulary
from pipeline.datasets.prepared_split import PreparedSplit, read_split
from pipeline.training.objectives import self_critical_batches, teacher_forcing_batches, word_weights

VOCABULARY = Vocabulary(("a", "dog", "dogs", "run", "far"))
NUMBERS = np.array([3, 1, 2])


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> PreparedSplit:
    folder = tmp_path_factory.mktemp("data")
    other = json.dumps({"captions": ["Far dogs."], "ids": [[5, 3]]}).encode()  # else no word would be worth anything
    shard(folder, "a.tar", tar_bytes([members(0)[0], ("k0.json", other), *members(1, 2, 3)]))
    return read_split(folder, "train")


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Architecture(vocabulary_size=VOCABULARY.size, cnn="squeezenet1_1", embedding_size=4, hidden_size=6).build()


def features(network: Network) -> torch.Tensor:
    return torch.randn(len(NUMBERS), network.encoder.feature_size, generator=torch.Generator().manual_seed(1))


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("captions_per_image", [1, 2, 5])
def test_people_s_captions_are_as_different_as_there_are_enough(split: PreparedSplit, captions_per_image: int) -> None:
    inputs = {"features": torch.ones(3, 2)}
    batch = teacher_forcing_batches(split, captions_per_image)(NUMBERS, inputs, random())
    assert batch.features is inputs["features"] and batch.caption_weights is None
    words = [row[:length].tolist() for row, length in zip(batch.words, batch.lengths.tolist(), strict=True)]
    for i in range(3):
        of_image = words[i * captions_per_image : (i + 1) * captions_per_image]
        assert {tuple(ids) for ids in of_image} <= {tuple(ids) for ids in CAPTIONS["ids"]}  # type: ignore[arg-type]
        assert len({tuple(ids) for ids in of_image}) == min(2, captions_per_image)


@pytest.mark.parametrize("baseline", ["others", "greedy"])
def test_what_is_drawn_is_weighed_by_its_worth(split: PreparedSplit, network: Network, baseline: str) -> None:
    lesson = self_critical_batches(
        network,
        split,
        VOCABULARY,
        samples_per_image=4,
        temperature=0.5,
        max_tokens=5,
        baseline=baseline,
        captions_per_image=2,
        cross_entropy_weight=0.0,
    )
    batch = lesson(NUMBERS, {"features": features(network)}, random())
    assert batch.words.shape[0] == 12 and batch.caption_weights is not None
    weights = batch.caption_weights.view(3, 4)
    if baseline == "others":  # of four, the advantages over the mean of the others add up to nothing
        assert torch.allclose(weights.sum(dim=1), torch.zeros(3), atol=1e-5)
    assert weights.abs().sum() > 0
    assert batch.caption_temperatures is not None and batch.caption_temperatures.tolist() == [0.5] * 12
    again = lesson(NUMBERS, {"features": features(network)}, random())
    assert torch.equal(again.words, batch.words)
    assert not torch.equal(lesson(NUMBERS, {"features": features(network)}, random(1)).lengths, batch.lengths)


def test_what_is_drawn_may_repeat_itself(split: PreparedSplit, network: Network) -> None:
    """Sampling uses no rules of the search, which would bias the gradient."""
    network.decoder.output.bias.data[END] -= 1000  # END comes last
    lesson = self_critical_batches(
        network,
        split,
        VOCABULARY,
        samples_per_image=4,
        temperature=1.0,
        max_tokens=9,
        baseline="others",
        captions_per_image=1,
        cross_entropy_weight=0.0,
    )
    said = lesson(NUMBERS, {"features": features(network)}, random()).words.tolist()
    assert any(len(set(pairwise(words))) < len(words) - 1 for words in said)


def test_people_may_speak_beside(split: PreparedSplit, network: Network) -> None:
    lesson = self_critical_batches(
        network,
        split,
        VOCABULARY,
        samples_per_image=2,
        temperature=0.5,
        max_tokens=5,
        baseline="others",
        captions_per_image=2,
        cross_entropy_weight=0.25,
    )
    batch = lesson(NUMBERS, {"features": features(network)}, random())
    assert batch.caption_weights is not None
    assert batch.caption_weights.view(3, 4)[:, 2:].tolist() == [[0.25, 0.25]] * 3
    assert batch.caption_temperatures is not None
    assert batch.caption_temperatures.view(3, 4).tolist() == [[0.5, 0.5, 1.0, 1.0]] * 3
    for i in range(3):
        theirs = {tuple(batch.words[4 * i + j][: batch.lengths[4 * i + j]].tolist()) for j in (2, 3)}
        assert theirs == {tuple(ids) for ids in CAPTIONS["ids"]}  # type: ignore[arg-type]


def test_rare_words_weigh_more(split: PreparedSplit) -> None:
    weights = word_weights(split, VOCABULARY)
    assert weights.shape == (VOCABULARY.size,)
    assert weights[3] == weights[5] == 0.0 < weights[1] == weights[4]  # in all images; in three of four
    assert (weights[VOCABULARY.suppressed_ids] == 0.0).all()
