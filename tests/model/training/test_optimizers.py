"""Optimisers and schedules."""

from typing import get_args

import pytest
import torch
from test_train_step import B, batch, changed, optimizer, per_token, state, tiny, trainer

from configs.errors import ConfigError
from configs.optimizer import Algorithm, Schedule
from model.training.optimizers import OPTIMIZERS, build_optimizers, learning_rate_factor

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


def schedule(shape: str, **options: float) -> Schedule:
    usual = {"warmup_steps": 0, "start_step": 0, "every_steps": 10, "factor": 0.5}
    return Schedule(shape, **usual | options)  # type: ignore[arg-type]


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
        schedule("linear")


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


def test_the_rate_rises_in_a_line_and_falls_along_a_cosine() -> None:
    rates = [learning_rate_factor(schedule("cosine", warmup_steps=4), step, 16) for step in range(17)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[10] == pytest.approx(0.5)
    assert rates[16] == pytest.approx(0.0)
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_warming_up_takes_no_more_than_a_quarter() -> None:
    assert [learning_rate_factor(schedule("constant", warmup_steps=9), step, 8) for step in range(4)] == [
        0.5,
        1.0,
        1.0,
        1.0,
    ]


def test_halving_is_smooth_and_a_step_is_not() -> None:
    """neuraltalk2: the rate times 0.5 to the power of (step - start) / every, from the start on."""
    steps = range(0, 40, 5)
    smooth = [learning_rate_factor(schedule("halving", start_step=10), step, 40) for step in steps]
    assert smooth == pytest.approx([1, 1, 1, 0.5**0.5, 0.5, 0.5**1.5, 0.25, 0.5**2.5])
    assert [learning_rate_factor(schedule("step", start_step=10), step, 40) for step in steps] == [
        1,
        1,
        1,
        1,
        0.5,
        0.5,
        0.25,
        0.25,
    ]
