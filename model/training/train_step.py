"""The training step, for one process or one of several: without a word on where data comes from.

Letters: B images, N captions per image, T words of the longest caption.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from model.device import autocast
from model.nn.captioning_network import Network
from model.training.loss import bag_of_words_loss, caption_loss, targets
from model.training.optimizers import Optimizer, Schedule, build_optimizers
from model.vocabulary import END


@dataclass(frozen=True)
class Batch:
    """What a step learns from.

    Args:
        words, lengths: from `pad`; (B × N, T) and (B × N,), the N captions of an image side by side.
        images, features: as `Network.forward` takes them.
        caption_weights: as `caption_loss` takes them.
        caption_temperatures: (B × N,), by which each caption's logits are divided: those it was drawn with.
    """

    words: torch.Tensor
    lengths: torch.Tensor
    images: torch.Tensor | None = None
    features: torch.Tensor | None = None
    caption_weights: torch.Tensor | None = None
    caption_temperatures: torch.Tensor | None = None


@dataclass(frozen=True)
class Objective:
    """What is asked of a caption.

    Args:
        label_smoothing: share of the probability spread over the vocabulary.
        word_weights: as `bag_of_words_loss` takes them.
        foretelling_weight: of that loss of a caption, beside the loss of a token; 0 leaves it out.
        dtype: of autocast; float32 computes as it is.
    """

    label_smoothing: float = 0.0
    word_weights: torch.Tensor | None = None
    foretelling_weight: float = 0.0
    dtype: torch.dtype = torch.float32


def pad_captions(captions: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Word ids of captions → (captions, T) int64 filled up with END, and their lengths (captions,)."""
    lengths = torch.tensor([len(caption) for caption in captions])
    words = torch.full((len(captions), max(1, int(lengths.max()))), END)
    for row, caption in zip(words, captions, strict=True):
        row[: len(caption)] = torch.tensor(caption, dtype=torch.int64)
    return words, lengths


def summed_loss(
    network: nn.Module, batch: Batch, objective: Objective | None = None, *, scheduled_sampling_prob: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Negative log-likelihood in nats summed over the batch, and its number of tokens.

    Args:
        network: a `Network`, or what stands for one on several workers.
        objective: None asks for the words alone.
        scheduled_sampling_prob: as `Network.forward` takes it.
    """
    asked = objective or Objective()
    with autocast(batch.words.device, asked.dtype):
        logits = network(
            batch.words, images=batch.images, features=batch.features, scheduled_sampling_prob=scheduled_sampling_prob
        )
    if batch.caption_temperatures is not None:
        logits = logits / batch.caption_temperatures[:, None, None]
    total, tokens = caption_loss(
        logits[:, 1:],
        targets(batch.words, batch.lengths),
        label_smoothing=asked.label_smoothing,
        caption_weights=batch.caption_weights,
    )
    if asked.word_weights is not None and asked.foretelling_weight:
        foretold = bag_of_words_loss(logits[:, 0], batch.words, batch.lengths, asked.word_weights)
        if batch.caption_weights is not None:
            foretold = foretold * batch.caption_weights
        total = total + asked.foretelling_weight * foretold.sum()
    return total, tokens


class TrainStep:
    """A network, its optimisers, their schedule and a moving average, for one stage of training.

    Where `torch.distributed` is initialised this is one of several workers: the loss is per token of all their batches,
    so that the gradients are those of one worker with the batches together. The first worker's weights count.

    Args:
        network: changed in place.
        optimizer: of decoder and projection.
        cnn_optimizer: of the CNN.
        schedule, steps: of their learning rates, and how many there will be.
        objective: what is asked.
        clip_norm, clip_value: largest norm of the gradient, largest size of each of its values; 0 for any.
        dropout, input_dropout: probabilities after the LSTM and before it. 0 for captions that the network drew itself:
            it must be asked as it drew.
        cnn_dropout: whether the CNN drops values as it was made to; else it is asked as it will be used.
        train_batch_norm: whether its batch norms follow the batches; else they keep their statistics.
        scheduled_sampling: `Network.forward`'s `scheduled_sampling_prob` at the last step; it grows in a line from 0.
        average_decay: of the moving average of the weights, in [0, 1); 0 keeps none.
    """

    def __init__(
        self,
        network: Network,
        *,
        optimizer: Optimizer,
        cnn_optimizer: Optimizer,
        schedule: Schedule,
        steps: int,
        objective: Objective,
        clip_norm: float = 0.0,
        clip_value: float = 0.0,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        cnn_dropout: bool = False,
        train_batch_norm: bool = False,
        scheduled_sampling: float = 0.0,
        average_decay: float = 0.0,
    ) -> None:
        self.network, self.steps, self.global_step = network, steps, 0
        self._objective = objective
        self._clip_norm, self._clip_value = clip_norm, clip_value
        self._cnn_dropout, self._train_batch_norm = cnn_dropout, train_batch_norm
        self._scheduled_sampling = scheduled_sampling
        network.decoder.set_dropout(dropout, inputs=input_dropout)
        self._optimizers = build_optimizers(network, optimizer, cnn_optimizer)
        self._schedules = [schedule.of(one, steps) for one in self._optimizers]
        self._trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self._workers = distributed.get_world_size() if distributed.is_initialized() else 1
        self._replica: nn.Module = (
            DistributedDataParallel(network, gradient_as_bucket_view=True) if self._workers > 1 else network
        )
        self._average = _average(network, average_decay) if average_decay else None

    @property
    def averaged(self) -> Network:
        """The network with the moving average of the weights, in evaluation mode."""
        return cast(Network, self._average.module if self._average else self.network).eval()

    @property
    def learning_rate(self) -> float:
        """Of decoder and projection, at the next step."""
        return cast(float, self._schedules[0].get_last_lr()[0])

    def step(self, batches: Sequence[Batch], *, stop_flag: bool = False) -> torch.Tensor:
        """Updates the weights by some batches together.

        Args:
            flag: a word to the others.

        Returns:
            (3,) of all workers: the sum of the loss in nats, the tokens, and how many raised the flag. Not waited for.
        """
        self._set_modes()
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        sums = torch.zeros(3, device=batches[0].words.device)
        sums[2] = float(stop_flag)
        for batch in batches:
            sums[:2] += self._backward(batch, last=batch is batches[-1])
        if self._workers > 1:
            distributed.all_reduce(sums)
        self._optimizer_step(self._workers / sums[1])
        self.global_step += 1
        return sums

    def _backward(self, batch: Batch, *, last: bool) -> torch.Tensor:
        """Adds to the gradient of the summed loss; returns the sum and the number of tokens."""
        scheduled_sampling_prob = self._scheduled_sampling * self.global_step / self.steps
        alone = isinstance(self._replica, DistributedDataParallel) and not last
        with self._replica.no_sync() if alone else contextlib.nullcontext():  # type: ignore[operator]
            total, tokens = summed_loss(
                self._replica, batch, self._objective, scheduled_sampling_prob=scheduled_sampling_prob
            )
            total.backward()  # type: ignore[no-untyped-call]
        return torch.stack([total.detach().float(), tokens.float()])

    def _optimizer_step(self, scale: torch.Tensor) -> None:
        """A step along the gradient, which is that of a sum, or the mean of the workers' sums, until it is scaled."""
        for parameter in self._trained:
            if parameter.grad is not None:
                parameter.grad.mul_(scale)
        if self._clip_value:
            nn.utils.clip_grad_value_(self._trained, self._clip_value)
        if self._clip_norm:
            nn.utils.clip_grad_norm_(self._trained, self._clip_norm)
        for optimizer, schedule in zip(self._optimizers, self._schedules, strict=True):
            optimizer.step()
            schedule.step()
        if self._average:
            self._average.update_parameters(self.network)

    def _set_modes(self) -> None:
        self.network.train()
        cnn = self.network.encoder.cnn.train(self._cnn_dropout)
        for module in cnn.modules():
            if isinstance(module, _BatchNorm):
                module.train(self._train_batch_norm)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, but for the random numbers."""
        return {
            "done": self.global_step,
            "network": self.network.state_dict(),
            "average": self._average.state_dict() if self._average else {},
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "schedules": [schedule.state_dict() for schedule in self._schedules],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what `state_dict` gave, of a trainer made alike."""
        self.global_step = state["done"]
        self.network.load_state_dict(state["network"])
        if self._average:
            self._average.load_state_dict(state["average"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        for schedule, saved in zip(self._schedules, state["schedules"], strict=True):
            schedule.load_state_dict(saved)


_Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]


def _average(network: Network, decay: float) -> AveragedModel:
    """A moving average that is faster at first, so that the first weights are soon forgotten."""

    def update(means: _Tensors, news: _Tensors, count: torch.Tensor | int) -> None:
        torch._foreach_lerp_(means, news, 1.0 - min(decay, float((1 + count) / (10 + count))))

    return AveragedModel(network, multi_avg_fn=update)
