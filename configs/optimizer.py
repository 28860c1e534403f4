"""Options of optimisers and learning-rate schedules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from configs.errors import ConfigError

Algorithm = Literal["adamw", "adam", "sgd", "nesterov", "rmsprop", "adagrad", "neuraltalk2_adam"]
Shape = Literal["cosine", "constant", "halving", "step"]


@dataclass(frozen=True)
class Optimizer:
    """The optimiser of one part of the network.

    Raises ConfigError for a value out of range.
    """

    name: Algorithm = "adamw"
    """The algorithm. neuraltalk2_adam is adam with epsilon added before the bias correction."""
    learning_rate: float = 2e-3
    """Peak learning rate. 0 freezes the weights."""
    weight_decay: float = 0.01
    """Weight decay of matrices; biases, norms and word embeddings are not decayed. It is decoupled from the gradient in
    adamw and added to the gradient in the other algorithms."""
    beta1: float = 0.9
    """Decay of the first moment in adamw and adam; the momentum of sgd, nesterov and rmsprop."""
    beta2: float = 0.98
    """Decay of the second moment in adamw and adam; alpha of rmsprop."""
    epsilon: float = 1e-8
    """Constant added to the square root of the second moment."""

    def __post_init__(self) -> None:
        if self.name not in get_args(Algorithm):
            raise ConfigError(f"there is no optimiser {self.name!r}; choose {', '.join(get_args(Algorithm))}")
        if self.learning_rate < 0 or self.weight_decay < 0 or self.epsilon < 0:
            raise ConfigError("an optimiser needs learning_rate ≥ 0, weight_decay ≥ 0 and epsilon ≥ 0")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ConfigError("an optimiser needs beta1 and beta2 in [0, 1)")


@dataclass(frozen=True)
class Schedule:
    """The learning-rate schedule: a linear warm-up, then a decay.

    Raises ConfigError for a value out of range.
    """

    shape: Shape = "cosine"
    """cosine decays to 0 at the last step, constant does not decay, halving is neuraltalk2's smooth exponential decay,
    step decays at once after each every_steps."""
    warmup_steps: int = 200
    """Number of steps of linear warm-up from 0; at most a quarter of all steps."""
    start_step: int = 0
    """Step at which the decay of halving and step begins."""
    every_steps: int = 50_000
    """Number of steps in which halving and step decay by the factor."""
    factor: float = 0.5
    """Decay factor of halving and step, in (0, 1]."""

    def __post_init__(self) -> None:
        if self.shape not in get_args(Shape):
            raise ConfigError(f"there is no schedule {self.shape!r}; choose {', '.join(get_args(Shape))}")
        if min(self.warmup_steps, self.start_step) < 0 or self.every_steps < 1 or not 0 < self.factor <= 1:
            raise ConfigError("a schedule needs warmup_steps ≥ 0, start_step ≥ 0, every_steps ≥ 1, factor in (0, 1]")
