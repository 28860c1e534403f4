"""Optimisers and learning-rate schedules, as data that is built where the network is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from model.errors import OptionError
from model.nn.captioning_network import Network
from model.training.neuraltalk2_adam import Neuraltalk2Adam


@dataclass(frozen=True)
class Optimizer:
    """How a part of the network follows its gradient.

    Args:
        name: one of `OPTIMIZERS`.
        learning_rate: at its peak; 0 freezes the part.
        weight_decay: of matrices; biases, norms and word embeddings are not decayed. Of adamw apart from the gradient,
            of the others added to it.
        momentum: the first moment's decay of adam and adamw (beta 1), the momentum of sgd, nesterov and rmsprop.
        smoothing: the second moment's decay: beta 2 of adam and adamw, alpha of rmsprop.
        epsilon: added to the root of the second moment.
    """

    name: str
    learning_rate: float
    weight_decay: float
    momentum: float
    smoothing: float
    epsilon: float

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZERS:
            raise OptionError(f"there is no optimiser {self.name!r}; choose {', '.join(OPTIMIZERS)}")

    def build(self, parameters: Iterable[nn.Parameter], *, undecayed: Iterable[torch.Tensor]) -> torch.optim.Optimizer:
        """For these parameters, of which those `undecayed` keep out of the weight decay, as do vectors."""
        kept = {id(parameter) for parameter in undecayed}
        groups: dict[float, list[nn.Parameter]] = {}
        for parameter in parameters:
            decayed = parameter.ndim > 1 and id(parameter) not in kept
            groups.setdefault(self.weight_decay if decayed else 0.0, []).append(parameter)
        listed = [{"params": members, "weight_decay": decay} for decay, members in groups.items()]
        return OPTIMIZERS[self.name](listed, self)


_Groups = list[dict[str, object]]

OPTIMIZERS: Mapping[str, Callable[[_Groups, Optimizer], torch.optim.Optimizer]] = {
    "adamw": lambda groups, o: torch.optim.AdamW(
        groups, lr=o.learning_rate, betas=(o.momentum, o.smoothing), eps=o.epsilon, fused=True
    ),
    "adam": lambda groups, o: torch.optim.Adam(
        groups, lr=o.learning_rate, betas=(o.momentum, o.smoothing), eps=o.epsilon, fused=True
    ),
    "sgd": lambda groups, o: torch.optim.SGD(groups, lr=o.learning_rate, momentum=o.momentum, fused=True),
    "nesterov": lambda groups, o: torch.optim.SGD(
        groups, lr=o.learning_rate, momentum=o.momentum, nesterov=True, fused=True
    ),
    "rmsprop": lambda groups, o: torch.optim.RMSprop(
        groups, lr=o.learning_rate, alpha=o.smoothing, eps=o.epsilon, momentum=o.momentum
    ),
    "adagrad": lambda groups, o: torch.optim.Adagrad(groups, lr=o.learning_rate, eps=o.epsilon, fused=True),
    "neuraltalk2_adam": lambda groups, o: Neuraltalk2Adam(
        groups, lr=o.learning_rate, betas=(o.momentum, o.smoothing), eps=o.epsilon
    ),
}


@dataclass(frozen=True)
class Schedule:
    """What becomes of a learning rate: up in a line, then down.

    Args:
        shape: one of `SHAPES`. constant stays; cosine falls to 0 at the last step; halving is neuraltalk2's, a smooth
            fall by `factor` in `every_steps` steps; step falls by `factor` at once, after each `every_steps`.
        warmup_steps: in which the rate rises from 0; at most a quarter of all.
        start_step: until which halving and step wait.
        every_steps, factor: of halving and step.
    """

    shape: str
    warmup_steps: int
    start_step: int
    every_steps: int
    factor: float

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise OptionError(f"there is no schedule {self.shape!r}; choose {', '.join(SHAPES)}")

    def at(self, step: int, steps: int) -> float:
        """Share of the learning rate's peak at `step` of `steps`, counted from 0."""
        warmup_steps = min(self.warmup_steps, steps // 4)
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        if self.shape == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))
        periods = max(0, step - self.start_step) / self.every_steps
        if self.shape == "halving":
            return float(self.factor**periods)
        return float(self.factor ** math.floor(periods)) if self.shape == "step" else 1.0

    def of(self, optimizer: torch.optim.Optimizer, steps: int) -> LambdaLR:
        """The schedule of an optimiser that is going to do `steps`."""
        return LambdaLR(optimizer, lambda step: self.at(step, steps))


SHAPES = ("constant", "cosine", "halving", "step")


def build_optimizers(network: Network, rest: Optimizer, cnn: Optimizer) -> list[torch.optim.Optimizer]:
    """The optimiser of decoder and projection, then the CNN's, unless its learning rate is 0, which freezes it."""
    network.encoder.cnn.requires_grad_(cnn.learning_rate > 0.0)
    embeddings = [network.decoder.embedding.weight]
    of_cnn = {id(parameter) for parameter in network.encoder.cnn.parameters()}
    others = [parameter for parameter in network.parameters() if id(parameter) not in of_cnn]
    built = [rest.build(others, undecayed=embeddings)]
    if cnn.learning_rate > 0.0:
        built.append(cnn.build(network.encoder.cnn.parameters(), undecayed=()))
    return built
