"""Optimisers."""

from typing import get_args

import pytest
import torch
from test_train_step import B, batch, changed, optimizer, per_token, state, tiny, trainer

from configs.errors import ConfigError
from configs.optimizer import Algorithm, Schedule
from model.training.optimizers import OPTIMIZERS, build_optimizers

RATES = {
    "adamw": 0.03,
    "adam": 0.03,
    "sgd": 0.5,
    "rmsprop": 0.01,
    "adagrad": 0.1,
    "nesterov": 0.5,
    "neuraltalk2_adam": 0.03,
}


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(B, 3, 8, 9, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_learns(name: str, images: torch.Tensor) -> None:
    learner = trainer(tiny(), optimizer=optimizer(RATES[name], name=name))
    losses = [per_token(learner.step([batch(images=images)])) for _ in range(80)]
    assert losses[-1] < 0.7 * losses[0]


def test_there_is_an_optimiser_for_each_name_in_the_configuration() -> None:
    assert set(get_args(Algorithm)) == set(OPTIMIZERS)
    with pytest.raises(ConfigError, match="adamw, adam, sgd, nesterov, rmsprop, adagrad, neuraltalk2_adam"):
        optimizer(0.1, name="lion")
    with pytest.raises(ConfigError, match="cosine, constant, halving, step"):
        Schedule("linear")  # type: ignore[arg-type]


def test_the_cnn_has_an_optimiser_of_its_own() -> None:
    network = tiny()
    rest, cnn = build_optimizers(network, optimizer(0.1), optimizer(0.2, name="sgd", weight_decay=0.3))
    assert isinstance(cnn, torch.optim.SGD) and isinstance(rest, torch.optim.AdamW)
    counted = [sum(len(group["params"]) for group in one.param_groups) for one in (rest, cnn)]
    assert counted[1] == len(list(network.encoder.cnn.parameters()))
    assert sum(counted) == len(list(network.parameters()))
    assert {group["weight_decay"] for group in cnn.param_groups} == {0.0, 0.3}


def test_a_rate_of_nothing_freezes_the_cnn(images: torch.Tensor) -> None:
    network = tiny()
    before = state(network.encoder.cnn)
    assert len(build_optimizers(network, optimizer(0.1), optimizer(0.0))) == 1
    trainer(network).step([batch(images=images)])
    assert changed(network.encoder.cnn, before) == set()
