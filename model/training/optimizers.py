"""Builds optimisers from their options (`configs.optimizer.Optimizer`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn

from configs.optimizer import Optimizer
from model.nn.captioning_network import Network
from model.training.neuraltalk2_adam import Neuraltalk2Adam

_Groups = list[dict[str, object]]

OPTIMIZERS: Mapping[str, Callable[[_Groups, Optimizer], torch.optim.Optimizer]] = {
    "adamw": lambda groups, o: torch.optim.AdamW(
        groups, lr=o.learning_rate, betas=(o.beta1, o.beta2), eps=o.epsilon, fused=True
    ),
    "adam": lambda groups, o: torch.optim.Adam(
        groups, lr=o.learning_rate, betas=(o.beta1, o.beta2), eps=o.epsilon, fused=True
    ),
    "sgd": lambda groups, o: torch.optim.SGD(groups, lr=o.learning_rate, momentum=o.beta1, fused=True),
    "nesterov": lambda groups, o: torch.optim.SGD(
        groups, lr=o.learning_rate, momentum=o.beta1, nesterov=True, fused=True
    ),
    "rmsprop": lambda groups, o: torch.optim.RMSprop(
        groups, lr=o.learning_rate, alpha=o.beta2, eps=o.epsilon, momentum=o.beta1
    ),
    "adagrad": lambda groups, o: torch.optim.Adagrad(groups, lr=o.learning_rate, eps=o.epsilon, fused=True),
    "neuraltalk2_adam": lambda groups, o: Neuraltalk2Adam(
        groups, lr=o.learning_rate, betas=(o.beta1, o.beta2), eps=o.epsilon
    ),
}


def build_optimizer(
    options: Optimizer, parameters: Iterable[nn.Parameter], *, undecayed: Iterable[torch.Tensor]
) -> torch.optim.Optimizer:
    """Builds the optimiser of these parameters. Vectors and those listed as `undecayed` get no weight decay."""
    kept = {id(parameter) for parameter in undecayed}
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        decayed = parameter.ndim > 1 and id(parameter) not in kept
        groups.setdefault(options.weight_decay if decayed else 0.0, []).append(parameter)
    listed = [{"params": members, "weight_decay": decay} for decay, members in groups.items()]
    return OPTIMIZERS[options.name](listed, options)


def build_optimizers(network: Network, rest: Optimizer, cnn: Optimizer) -> list[torch.optim.Optimizer]:
    """Builds the optimiser of decoder and projection, then the CNN's. A learning rate of 0 freezes the CNN, which
    then has no optimiser."""
    network.encoder.cnn.requires_grad_(cnn.learning_rate > 0.0)
    embeddings = [network.decoder.embedding.weight]
    of_cnn = {id(parameter) for parameter in network.encoder.cnn.parameters()}
    others = [parameter for parameter in network.parameters() if id(parameter) not in of_cnn]
    built = [build_optimizer(rest, others, undecayed=embeddings)]
    if cnn.learning_rate > 0.0:
        built.append(build_optimizer(cnn, network.encoder.cnn.parameters(), undecayed=()))
    return built
