"""The training step, on a network that is small enough to memorise two captions."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tolerances import needs_bfloat16
from torch import nn

from configs.optimizer import Optimizer, Schedule
from configs.search import Search
from configs.stage import Stage
from model.decoding.search import generate
from model.nn.captioning_network import Network
from model.nn.decoder import Decoder
from model.nn.encoder import Encoder
from model.training.train_step import Batch, Objective, TrainStep, pad_captions, summed_loss
from model.vocabulary import END

B, N, E, H, V = 3, 2, 5, 6, 11
CAPTIONS = [[3, 1, 4], [1], [5, 9, 2, 6, 5, 3, 8], [], [9, 7], [9, 3, 2, 3]]  # N for each of B images


def tiny(dropout: float = 0.0, attention_heads: int = 0) -> Network:
    """A CNN with a convolution, a batch norm and a linear layer, in place of torchvision's."""
    torch.manual_seed(0)
    encoder = Encoder("squeezenet1_1", E, spatial=attention_heads > 0)
    encoder.cnn = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    last = [nn.Conv2d(4, 7, 3)] if attention_heads else [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 7)]
    encoder.cnn.extend(last)
    encoder.projection = nn.Linear(7, E)
    encoder.feature_mean, encoder.feature_std = torch.zeros(7), torch.ones(7)
    if attention_heads:
        encoder.places, encoder.place_std = nn.Linear(7, E), torch.ones(7)
    nn.init.ones_(encoder.projection.bias)  # so that no rectifier is dead
    return Network(encoder, Decoder(V, E, H, dropout=dropout, attention_heads=attention_heads))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(B, 3, 8, 9, generator=torch.Generator().manual_seed(1))


def optimizer(learning_rate: float, **options: Any) -> Optimizer:
    usual: dict[str, Any] = {"weight_decay": 0.0, "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-8}
    return Optimizer(**{"name": "adamw", "learning_rate": learning_rate} | usual | options)


def trainer(
    network: Network,
    *,
    learning_rate: float = 0.03,
    cnn_learning_rate: float = 0.0,
    warmup_steps: int = 3,
    weight_decay: float = 0.0,
    steps: int = 60,
    objective: Objective = Objective(),  # noqa: B008
    **options: Any,
) -> TrainStep:
    usual: dict[str, Any] = {
        "optimizer": optimizer(learning_rate, weight_decay=weight_decay),
        "cnn": optimizer(cnn_learning_rate, weight_decay=weight_decay),
        "schedule": Schedule("cosine", warmup_steps),
        "dropout": network.decoder.dropout.p,
        "input_dropout": network.decoder.input_dropout.p,
        "ema_decay": 0.9,
    }
    return TrainStep(network, Stage(**usual | options), steps=steps, objective=objective)


def batch(captions: list[list[int]] = CAPTIONS, **options: Any) -> Batch:
    return Batch(*pad_captions(captions), **options)


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def per_token(sums: torch.Tensor) -> float:
    return float(sums[0] / sums[1])


def changed(module: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def test_captions_are_padded_with_end() -> None:
    words, lengths = pad_captions([[3, 1, 4], [], [5]])
    assert words.tolist() == [[3, 1, 4], [END] * 3, [5, END, END]]
    assert lengths.tolist() == [3, 0, 1]


def test_captions_without_words_can_be_padded() -> None:
    words, lengths = pad_captions([[], []])
    assert (words.tolist(), lengths.tolist()) == ([[END], [END]], [0, 0])


def test_losses_and_gradients_of_parts_add_up_to_those_of_the_batch(images: torch.Tensor) -> None:
    whole, parts = tiny().double().eval(), tiny().double().eval()
    total, tokens = summed_loss(whole, batch(images=images.double()))
    total.backward()
    added, counted = 0.0, 0
    for some in (slice(0, 1), slice(1, 3)):
        captions = CAPTIONS[some.start * N : some.stop * N]
        partial, some_tokens = summed_loss(parts, batch(captions, images=images.double()[some]))
        partial.backward()
        added, counted = added + partial.item(), counted + int(some_tokens)
    assert added == pytest.approx(total.item(), abs=1e-10)
    assert counted == int(tokens) == sum(map(len, CAPTIONS)) + B * N
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert one.grad is not None
        assert torch.allclose(one.grad, other.grad, atol=1e-10)


def test_each_caption_is_scored_on_its_own_image(images: torch.Tensor) -> None:
    network = tiny().double().eval()
    total, _ = summed_loss(network, batch(images=images.double()))
    alone = 0.0
    for i, caption in enumerate(CAPTIONS):
        loss, _ = summed_loss(network, batch([caption], images=images.double()[i // N : i // N + 1]))
        alone += loss.item()
    assert alone == pytest.approx(total.item(), abs=1e-10)


def test_features_computed_before_give_the_same_loss(images: torch.Tensor) -> None:
    network = tiny().eval()
    features = network.encoder.features(images)
    by_features, _ = summed_loss(network, batch(features=features))
    assert torch.equal(by_features, summed_loss(network, batch(images=images))[0])


def test_a_network_wants_images_or_features() -> None:
    with pytest.raises(TypeError, match="images or their features"):
        tiny()(torch.ones(1, 2, dtype=torch.int64))


def test_two_images_are_learnt_by_heart() -> None:
    network, captions = tiny(), [[3, 1, 4], [5, 9]]
    images = 2 * torch.tensor([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]])[..., None, None].expand(2, 3, 8, 9)  # red, green
    learner = trainer(network, steps=300, cnn_learning_rate=0.01)
    losses = [per_token(learner.step([batch(captions, images=images)])) for _ in range(300)]
    assert losses[0] == pytest.approx(math.log(V), rel=0.2)
    assert losses[-1] < 0.05 * losses[0]
    network.eval()
    with torch.inference_mode():
        embeddings = network.encoder(images)
    found = generate(Search(method="greedy"), network.decoder, embeddings)
    assert [hypotheses[0].words for hypotheses in found] == captions


def test_a_frozen_cnn_stays_as_it_is(images: torch.Tensor) -> None:
    network = tiny()
    before, cnn = state(network), state(network.encoder.cnn)
    learner = trainer(network, weight_decay=0.1)
    for _ in range(3):
        learner.step([batch(images=images)])
    assert changed(network.encoder.cnn, cnn) == set()
    assert {name.split(".")[0] for name in changed(network, before)} == {"encoder", "decoder"}


def test_finetuning_changes_all_of_the_cnn_but_its_statistics(images: torch.Tensor) -> None:
    network = tiny()
    before = state(network)
    learner = trainer(network, cnn_learning_rate=1e-3)
    for _ in range(4):
        learner.step([batch(images=images)])
    assert changed(network, before) == {name for name, _ in network.named_parameters()}


def test_training_needs_no_images_where_the_cnn_is_frozen(images: torch.Tensor) -> None:
    by_images, by_features = tiny(), tiny()
    with torch.no_grad():
        features = by_features.eval().encoder.features(images)
    first, second = trainer(by_images), trainer(by_features)
    for _ in range(3):
        one = per_token(first.step([batch(images=images)]))
        assert per_token(second.step([batch(features=features)])) == pytest.approx(one, abs=1e-6)


def test_the_first_steps_are_within_their_learning_rates(images: torch.Tensor) -> None:
    network = tiny()
    before = {name: value.clone() for name, value in network.named_parameters()}
    learner = trainer(network, warmup_steps=4, learning_rate=0.08, cnn_learning_rate=0.004)
    learner.step([batch(images=images)])
    for name, value in network.named_parameters():  # Adam's first step is the rate itself, here a quarter of the peak
        rate = 0.001 if name.startswith("encoder.cnn") else 0.02
        assert float((value - before[name]).detach().abs().max()) == pytest.approx(rate, rel=0.05), name


def test_only_matrices_decay(images: torch.Tensor) -> None:
    network = tiny()
    before = {name: value.clone() for name, value in network.named_parameters()}
    other = copy.deepcopy(network)
    one = [batch([[1], [2], [3]], images=images)]
    trainer(network, weight_decay=0.5, warmup_steps=0).step(one)
    trainer(other, weight_decay=0.0, warmup_steps=0).step(one)
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
    learner, steps = trainer(network, ema_decay=0.5), []
    for _ in range(4):
        learner.step([batch(images=images)])
        steps.append(network.decoder.output.bias.detach().clone())
    expected = steps[0]
    for count, new in enumerate(steps[1:], start=1):
        decay = min(0.5, (1 + count) / (10 + count))
        expected = decay * expected + (1 - decay) * new
    assert torch.allclose(learner.averaged.decoder.output.bias, expected, atol=1e-6)
    assert not learner.averaged.training


def test_dropout_is_on_in_the_decoder_and_off_in_the_cnn(images: torch.Tensor) -> None:
    network = tiny(dropout=0.5)
    trainer(network).step([batch(images=images)])
    assert network.decoder.dropout.training
    assert not any(module.training for module in network.encoder.cnn.modules())


@needs_bfloat16
def test_half_precision_trains(images: torch.Tensor) -> None:
    learner = trainer(tiny(), objective=Objective(dtype=torch.bfloat16))
    losses = [per_token(learner.step([batch(images=images)])) for _ in range(15)]
    assert losses[-1] < 0.9 * losses[0]


def test_a_stage_has_its_own_dropout(images: torch.Tensor) -> None:
    network = tiny(dropout=0.5)
    words, _ = pad_captions(CAPTIONS)

    def is_random() -> bool:
        network.train()
        return not torch.equal(network(words, images=images), network(words, images=images))

    assert is_random()
    trainer(network, dropout=0.0, input_dropout=0.0)
    network.encoder.cnn.eval()
    assert not is_random()
    trainer(network, dropout=0.3, input_dropout=0.0)
    assert is_random()
    trainer(network, dropout=0.0, input_dropout=0.3)
    assert is_random()


def test_parts_of_a_step_add_up_to_the_whole(images: torch.Tensor) -> None:
    whole, parts = tiny().double(), tiny().double()
    options: dict[str, Any] = {"optimizer": optimizer(0.5, name="sgd"), "max_grad_norm": 0.0, "warmup_steps": 0}
    total = trainer(whole, **options).step([batch(images=images.double())])
    each = [batch(CAPTIONS[i * N : i * N + N], images=images.double()[i : i + 1]) for i in range(B)]
    assert torch.allclose(trainer(parts, **options).step(each), total)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-7)


def test_a_step_gives_the_loss_the_tokens_and_the_flags(images: torch.Tensor) -> None:
    network = tiny().eval()
    total, tokens = summed_loss(network, batch(images=images))
    sums = trainer(network).step([batch(images=images)], stop_flag=True)
    assert sums.tolist() == pytest.approx([float(total.detach()), int(tokens), 1.0])


def test_gradients_are_clipped_by_value(images: torch.Tensor) -> None:
    network = tiny()
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    clipped = trainer(
        network, optimizer=optimizer(1.0, name="sgd", beta1=0.0), max_grad_norm=0.0, max_grad_value=0.01, warmup_steps=0
    )
    clipped.step([batch(images=images)])
    moved = max(float((value - before[name]).detach().abs().max()) for name, value in network.named_parameters())
    assert moved == pytest.approx(0.01)


def test_batch_norms_follow_the_batches_only_if_they_are_told_to(images: torch.Tensor) -> None:
    for follows in (False, True):
        network = tiny()
        before = state(network.encoder.cnn)
        trainer(network, train_batch_norm=follows).step([batch(images=images)])
        assert bool(changed(network.encoder.cnn, before) & {"1.running_mean", "1.running_var"}) is follows


def test_the_cnn_drops_values_only_if_it_is_told_to(images: torch.Tensor) -> None:
    network = tiny()
    network.encoder.cnn.append(nn.Dropout(0.5))
    trainer(network).step([batch(images=images)])
    assert not network.encoder.cnn[-1].training
    trainer(network, cnn_dropout=True).step([batch(images=images)])
    assert network.encoder.cnn[-1].training and not network.encoder.cnn[1].training


def test_a_decoder_that_mishears_is_asked_for_the_same_words(images: torch.Tensor) -> None:
    network = tiny().eval()
    words, _ = pad_captions(CAPTIONS)
    heard = []
    network.decoder.register_forward_pre_hook(lambda _, arguments: heard.append(arguments[1]))
    with torch.no_grad():
        network.decoder.output.bias[6] += 50.0  # whatever it draws is a 6
        network(words, images=images, scheduled_sampling_prob=1.0)
        summed, _ = summed_loss(network, batch(images=images), scheduled_sampling_prob=1.0)
        clear, _ = summed_loss(network, batch(images=images))
    assert (heard[1] == 6).all() and torch.equal(heard[0], words)
    assert summed != clear
    heard.clear()
    learner = trainer(network, scheduled_sampling=0.5, steps=2)
    learner.step([batch(images=images)])
    assert len(heard) == 1  # it grows from nothing
    learner.step([batch(images=images)])
    assert len(heard) == 3


def test_a_trainer_goes_on_from_its_state(images: torch.Tensor) -> None:
    network = tiny()
    learner = trainer(network, cnn_learning_rate=1e-3)
    for _ in range(3):
        learner.step([batch(images=images)])
    kept = copy.deepcopy(learner.state_dict())
    for _ in range(2):
        learner.step([batch(images=images)])
    other = trainer(tiny(), cnn_learning_rate=1e-3)
    other.load_state_dict(kept)
    for _ in range(2):
        other.step([batch(images=images)])
    assert changed(other.network, state(network)) == set()
    assert changed(other.averaged, state(learner.averaged)) == set()
    assert (other.global_step, other.learning_rate) == (5, learner.learning_rate)


IMAGES = 5  # 3 + 2 of two workers, 1 + 2 + 2 of three
THEIRS = [[3, 1, 4], [1], [5, 9, 2, 6, 5, 3, 8], [], [9, 7], [9, 3, 2, 3], [8], [4, 4, 4, 4, 4], [2, 7], [1, 8, 2, 8]]


def work(rank: int, workers: int, rendezvous: str, result: str) -> None:
    """Runs one of several workers: two steps on its share of the images, in float64, without and with attention."""
    if workers > 1:
        torch.distributed.init_process_group("gloo", f"file://{rendezvous}", world_size=workers, rank=rank)
    gradients = {}
    for attention_heads in (0, 1):
        network = tiny(attention_heads=attention_heads).double()
        if rank:
            with torch.no_grad():
                network.decoder.output.bias += 1.0  # the first one's weights count
        learner = trainer(network, optimizer=optimizer(0.5, name="sgd"), cnn_learning_rate=0.01, max_grad_norm=1.0)
        images = torch.randn(IMAGES, 3, 8, 9, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        mine = slice(IMAGES * rank // workers, IMAGES * (rank + 1) // workers)
        for _ in range(2):
            learner.step([batch(THEIRS[mine.start * N : mine.stop * N], images=images[mine])])
        gradients |= {(attention_heads, name): value.grad for name, value in network.named_parameters()}
    if rank == 0:
        torch.save(gradients, result)
    if workers > 1:
        torch.distributed.destroy_process_group()


def test_workers_together_have_the_gradients_of_one_alone(tmp_path: Path) -> None:
    for workers in (2, 3):
        files = str(tmp_path / f"meet{workers}"), str(tmp_path / f"{workers}")
        torch.multiprocessing.spawn(work, (workers, *files), workers)
    work(0, 1, "", str(tmp_path / "1"))
    alone = torch.load(tmp_path / "1")
    assert max(float(gradient.abs().max()) for gradient in alone.values()) > 0.01
    for workers in (2, 3):
        together = torch.load(tmp_path / f"{workers}")
        for name, gradient in alone.items():
            assert torch.allclose(together[name], gradient, rtol=1e-6, atol=1e-9), (workers, name)
