"""The training step, on a network small enough to learn two captions by heart."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from model.decoder import Decoder
from model.encoder import Encoder
from model.network import Network
from model.search import Search
from model.training import Trainer, pad, summed_loss, warm_cosine
from model.vocabulary import END

B, N, E, H, V = 3, 2, 5, 6, 11
CAPTIONS = [[3, 1, 4], [1], [5, 9, 2, 6, 5, 3, 8], [], [9, 7], [9, 3, 2, 3]]  # N for each of B images


def tiny(dropout: float = 0.0) -> Network:
    """A CNN with a convolution, a batch norm and a layer, in the place of torchvision's."""
    torch.manual_seed(0)
    encoder = Encoder("squeezenet1_1", E)
    encoder.cnn = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 7)
    )
    encoder.projection = nn.Linear(7, E)
    encoder.feature_mean, encoder.feature_std = torch.zeros(7), torch.ones(7)
    nn.init.ones_(encoder.projection.bias)  # so that no rectifier is dead
    return Network(encoder, Decoder(V, E, H, dropout=dropout))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(B, 3, 8, 9, generator=torch.Generator().manual_seed(1))


def trainer(network: Network, **options: Any) -> Trainer:
    usual: dict[str, Any] = {
        "steps": 60,
        "learning_rate": 0.03,
        "cnn_learning_rate": 0.0,
        "weight_decay": 0.0,
        "warmup_steps": 3,
        "clip_norm": 5.0,
        "label_smoothing": 0.0,
        "dropout": network.decoder.dropout.p,
        "average_decay": 0.9,
        "dtype": torch.float32,
    }
    return Trainer(network, **usual | options)


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def test_captions_are_padded_with_end() -> None:
    words, lengths = pad([[3, 1, 4], [], [5]])
    assert words.tolist() == [[3, 1, 4], [END] * 3, [5, END, END]]
    assert lengths.tolist() == [3, 0, 1]


def test_captions_without_words_can_be_padded() -> None:
    words, lengths = pad([[], []])
    assert (words.tolist(), lengths.tolist()) == ([[END], [END]], [0, 0])


def test_losses_and_gradients_of_parts_add_up_to_those_of_the_batch(images: torch.Tensor) -> None:
    whole, parts = tiny().double().eval(), tiny().double().eval()
    total, tokens = summed_loss(whole, *pad(CAPTIONS), images=images.double())
    total.backward()
    added, counted = 0.0, 0
    for some in (slice(0, 1), slice(1, 3)):
        words, lengths = pad(CAPTIONS[some.start * N : some.stop * N])
        partial, some_tokens = summed_loss(parts, words, lengths, images=images.double()[some])
        partial.backward()
        added, counted = added + partial.item(), counted + int(some_tokens)
    assert added == pytest.approx(total.item(), abs=1e-10)
    assert counted == int(tokens) == sum(map(len, CAPTIONS)) + B * N
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert one.grad is not None
        assert torch.allclose(one.grad, other.grad, atol=1e-10)


def test_each_caption_is_scored_on_its_own_image(images: torch.Tensor) -> None:
    network = tiny().double().eval()
    total, _ = summed_loss(network, *pad(CAPTIONS), images=images.double())
    alone = 0.0
    for i, caption in enumerate(CAPTIONS):
        loss, _ = summed_loss(network, *pad([caption]), images=images.double()[i // N : i // N + 1])
        alone += loss.item()
    assert alone == pytest.approx(total.item(), abs=1e-10)


def test_features_computed_before_give_the_same_loss(images: torch.Tensor) -> None:
    network = tiny().eval()
    features = network.encoder.features(images)
    by_features, _ = summed_loss(network, *pad(CAPTIONS), features=features)
    assert torch.equal(by_features, summed_loss(network, *pad(CAPTIONS), images=images)[0])


def test_a_network_wants_images_or_features() -> None:
    with pytest.raises(TypeError, match="images or their features"):
        tiny()(torch.ones(1, 2, dtype=torch.int64))


def test_two_images_are_learnt_by_heart() -> None:
    network, captions = tiny(), [[3, 1, 4], [5, 9]]
    images = 2 * torch.tensor([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]])[..., None, None].expand(2, 3, 8, 9)  # red, green
    learner = trainer(network, steps=300, cnn_learning_rate=0.01)
    losses = [learner.step(*pad(captions), images=images) for _ in range(300)]
    assert losses[0] == pytest.approx(math.log(V), rel=0.2)
    assert losses[-1] < 0.05 * losses[0]
    network.eval()
    with torch.inference_mode():
        embeddings = network.encoder(images)
    found = Search(method="greedy")(network.decoder, embeddings)
    assert [hypotheses[0].words for hypotheses in found] == captions


def test_a_frozen_cnn_stays_as_it_is(images: torch.Tensor) -> None:
    network = tiny()
    before, cnn = state(network), state(network.encoder.cnn)
    learner = trainer(network, weight_decay=0.1)
    for _ in range(3):
        learner.step(*pad(CAPTIONS), images=images)
    assert changed(network.encoder.cnn, cnn) == set()
    assert {name.split(".")[0] for name in changed(network, before)} == {"encoder", "decoder"}


def test_finetuning_changes_all_of_the_cnn_but_its_statistics(images: torch.Tensor) -> None:
    network = tiny()
    before = state(network)
    learner = trainer(network, cnn_learning_rate=1e-3)
    for _ in range(4):
        learner.step(*pad(CAPTIONS), images=images)
    assert changed(network, before) == {name for name, _ in network.named_parameters()}


def test_training_needs_no_images_where_the_cnn_is_frozen(images: torch.Tensor) -> None:
    by_images, by_features = tiny(), tiny()
    with torch.no_grad():
        features = by_features.eval().encoder.features(images)
    first, second = trainer(by_images), trainer(by_features)
    for _ in range(3):
        one = first.step(*pad(CAPTIONS), images=images)
        assert second.step(*pad(CAPTIONS), features=features) == pytest.approx(one, abs=1e-6)


def test_the_first_steps_are_within_their_learning_rates(images: torch.Tensor) -> None:
    network = tiny()
    before = {name: value.clone() for name, value in network.named_parameters()}
    learner = trainer(network, warmup_steps=4, learning_rate=0.08, cnn_learning_rate=0.004)
    learner.step(*pad(CAPTIONS), images=images)
    for name, value in network.named_parameters():  # Adam's first step is the rate itself, here a quarter of the peak
        rate = 0.001 if name.startswith("encoder.cnn") else 0.02
        assert float((value - before[name]).detach().abs().max()) == pytest.approx(rate, rel=0.05), name


def test_only_matrices_decay(images: torch.Tensor) -> None:
    network = tiny()
    before = {name: value.clone() for name, value in network.named_parameters()}
    other = copy.deepcopy(network)
    words, lengths = pad([[1], [2], [3]])
    trainer(network, weight_decay=0.5, warmup_steps=0).step(words, lengths, images=images)
    trainer(other, weight_decay=0.0, warmup_steps=0).step(words, lengths, images=images)
    decayed = {
        name
        for (name, value), without in zip(network.named_parameters(), other.parameters(), strict=True)
        if not torch.equal(value, without)
    }
    assert decayed == {
        name
        for name in before
        if not name.startswith("encoder.cnn") and "bias" not in name and name != "decoder.embedding.weight"
    }


def test_the_average_follows_the_weights(images: torch.Tensor) -> None:
    network = tiny()
    learner, steps = trainer(network, average_decay=0.5), []
    for _ in range(4):
        learner.step(*pad(CAPTIONS), images=images)
        steps.append(network.decoder.output.bias.detach().clone())
    expected = steps[0]
    for count, new in enumerate(steps[1:], start=1):
        decay = min(0.5, (1 + count) / (10 + count))
        expected = decay * expected + (1 - decay) * new
    assert torch.allclose(learner.averaged.decoder.output.bias, expected, atol=1e-6)
    assert not learner.averaged.training


def test_dropout_is_on_in_the_decoder_and_off_in_the_cnn(images: torch.Tensor) -> None:
    network = tiny(dropout=0.5)
    trainer(network).step(*pad(CAPTIONS), images=images)
    assert network.decoder.dropout.training
    assert not any(module.training for module in network.encoder.cnn.modules())


def test_the_rate_rises_in_a_line_and_falls_along_a_cosine() -> None:
    rates = [warm_cosine(step, steps=10, warmup_steps=4) for step in range(11)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[7] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(0.0)
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_warming_up_takes_no_more_than_a_quarter(images: torch.Tensor) -> None:
    network = tiny()
    learner = trainer(network, steps=1, warmup_steps=1000)
    before = state(network.decoder)
    learner.step(*pad(CAPTIONS), images=images)
    moved = float((network.decoder.output.bias - before["output.bias"]).detach().abs().max())
    assert moved == pytest.approx(0.03, rel=0.05)


def test_half_precision_trains(images: torch.Tensor) -> None:
    learner = trainer(tiny(), dtype=torch.bfloat16)
    losses = [learner.step(*pad(CAPTIONS), images=images) for _ in range(15)]
    assert losses[-1] < 0.9 * losses[0]


def test_a_stage_has_its_own_dropout(images: torch.Tensor) -> None:
    network = tiny(dropout=0.5)
    words, _ = pad(CAPTIONS)

    def is_random() -> bool:
        network.train()
        return not torch.equal(network(words, images=images), network(words, images=images))

    assert is_random()
    trainer(network, dropout=0.0)
    network.encoder.cnn.eval()
    assert not is_random()
    trainer(network, dropout=0.3)
    assert is_random()
