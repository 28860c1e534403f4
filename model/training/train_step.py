"""The training step, in one process or in one of several workers; independent of the data source.

Letters: B images, N captions per image, T words of the longest caption, V vocabulary (END included).
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
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from configs.stage import Stage
from model.device import autocast
from model.nn.captioning_network import Network
from model.training.learning_rate_schedules import build_scheduler
from model.training.loss import bag_of_words_loss, caption_loss, targets
from model.training.optimizers import build_optimizers
from model.vocabulary import END


@dataclass(frozen=True)
class Batch:
    """The captions and images of a step, or of one of the parts it accumulates gradients over.

    Args:
        words: (B × N, T) ids from `pad_captions`, the N captions of an image side by side.
        lengths: (B × N,) words of each caption.
        images, features: as in `Network.forward`.
        caption_weights: (B × N,) factors of the captions' losses, as in `caption_loss`.
        caption_temperatures: (B × N,) temperature that each caption was sampled with, which divides its logits.
    """

    words: torch.Tensor
    lengths: torch.Tensor
    images: torch.Tensor | None = None
    features: torch.Tensor | None = None
    caption_weights: torch.Tensor | None = None
    caption_temperatures: torch.Tensor | None = None


@dataclass(frozen=True)
class Objective:
    """Options of the loss.

    Args:
        label_smoothing: share of the target probability spread evenly over the vocabulary, in [0, 1).
        word_weights: (V,), as in `bag_of_words_loss`.
        bag_of_words_weight: weight of a caption's bag-of-words loss relative to the loss of a token; 0 disables it.
        dtype: precision of autocast; float32 disables autocast.
    """

    label_smoothing: float = 0.0
    word_weights: torch.Tensor | None = None
    bag_of_words_weight: float = 0.0
    dtype: torch.dtype = torch.float32


def pad_captions(captions: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pads word ids of captions with END to (captions, T) int64; also returns their lengths (captions,)."""
    lengths = torch.tensor([len(caption) for caption in captions])
    words = torch.full((len(captions), max(1, int(lengths.max()))), END)
    for row, caption in zip(words, captions, strict=True):
        row[: len(caption)] = torch.tensor(caption, dtype=torch.int64)
    return words, lengths


def summed_loss(
    network: nn.Module, batch: Batch, objective: Objective | None = None, *, scheduled_sampling_prob: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the loss in nats summed over the batch, and the number of tokens, each as a scalar tensor.

    Args:
        network: a `Network`, or its `DistributedDataParallel` wrapper.
        objective: None is `Objective()`.
        scheduled_sampling_prob: as in `Network.forward`.
    """
    objective = objective or Objective()
    with autocast(batch.words.device, objective.dtype):
        logits = network(
            batch.words, images=batch.images, features=batch.features, scheduled_sampling_prob=scheduled_sampling_prob
        )
    if batch.caption_temperatures is not None:
        logits = logits / batch.caption_temperatures[:, None, None]
    total, tokens = caption_loss(
        logits[:, 1:],
        targets(batch.words, batch.lengths),
        label_smoothing=objective.label_smoothing,
        caption_weights=batch.caption_weights,
    )
    if objective.word_weights is not None and objective.bag_of_words_weight:
        bag_of_words = bag_of_words_loss(logits[:, 0], batch.words, batch.lengths, objective.word_weights)
        if batch.caption_weights is not None:
            bag_of_words = bag_of_words * batch.caption_weights
        total = total + objective.bag_of_words_weight * bag_of_words.sum()
    return total, tokens


class TrainStep:
    """Updates a network by batches: holds its optimisers, schedules and weight average for one stage of training.

    If `torch.distributed` is initialised, this is one of several workers: the loss is averaged over the tokens of all
    workers' batches, so the gradients equal those of one worker with all of them. The first worker's weights are taken.

    Args:
        network: updated in place.
        stage: options of optimisers, schedule, clipping, dropout, scheduled sampling and moving average. Both kinds of
            dropout must be 0 for sampled captions, which are scored as they were sampled.
        steps: number of steps of the stage.
        objective: options of the loss.
    """

    def __init__(
        self,
        network: Network,
        stage: Stage,
        *,
        steps: int,
        objective: Objective,
    ) -> None:
        self.network, self.steps, self.global_step = network, steps, 0
        self._stage, self._objective = stage, objective
        network.decoder.set_dropout(stage.dropout, inputs=stage.input_dropout)
        self._optimizers = build_optimizers(network, stage.optimizer, stage.cnn)
        self._schedules = [build_scheduler(stage.schedule, one, steps) for one in self._optimizers]
        self._trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self._workers = distributed.get_world_size() if distributed.is_initialized() else 1
        self._replica: nn.Module = (
            DistributedDataParallel(network, gradient_as_bucket_view=True) if self._workers > 1 else network
        )
        self._average = _average(network, stage.ema_decay) if stage.ema_decay else None

    @property
    def averaged(self) -> Network:
        """The network with averaged weights, in evaluation mode; the network itself if no average is kept."""
        return cast(Network, self._average.module if self._average else self.network).eval()

    @property
    def learning_rate(self) -> float:
        """Learning rate of decoder and projection at the next step."""
        return cast(float, self._schedules[0].get_last_lr()[0])

    def step(self, batches: Sequence[Batch], *, stop_flag: bool = False) -> torch.Tensor:
        """Updates the weights once, by the gradient of all batches together.

        Args:
            batches: parts whose gradients are accumulated, at least one.
            stop_flag: this worker's request to stop, summed over workers.

        Returns:
            (3,) over all workers: the loss in nats, summed; the number of tokens; the number of stop requests. The
            result is not synchronised with the device.
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
        """Accumulates the gradient of the summed loss; returns (2,): the loss in nats and the number of tokens."""
        scheduled_sampling_prob = self._stage.scheduled_sampling * self.global_step / self.steps
        local = isinstance(self._replica, DistributedDataParallel) and not last
        with self._replica.no_sync() if local else contextlib.nullcontext():  # type: ignore[operator]
            total, tokens = summed_loss(
                self._replica, batch, self._objective, scheduled_sampling_prob=scheduled_sampling_prob
            )
            total.backward()  # type: ignore[no-untyped-call]
        return torch.stack([total.detach().float(), tokens.float()])

    def _optimizer_step(self, scale: torch.Tensor) -> None:
        """Rescales the summed gradient to a per-token mean, clips it and steps the optimisers."""
        for parameter in self._trained:
            if parameter.grad is not None:
                parameter.grad.mul_(scale)
        if self._stage.max_grad_value:
            nn.utils.clip_grad_value_(self._trained, self._stage.max_grad_value)
        if self._stage.max_grad_norm:
            nn.utils.clip_grad_norm_(self._trained, self._stage.max_grad_norm)
        for optimizer, schedule in zip(self._optimizers, self._schedules, strict=True):
            optimizer.step()
            schedule.step()
        if self._average:
            self._average.update_parameters(self.network)

    def _set_modes(self) -> None:
        self.network.train()
        cnn = self.network.encoder.cnn.train(self._stage.cnn_dropout)
        for module in cnn.modules():
            if isinstance(module, _BatchNorm):
                module.train(self._stage.train_batch_norm)

    def state_dict(self) -> dict[str, Any]:
        """Returns all state that the next step depends on, except that of random number generators."""
        return {
            "done": self.global_step,
            "network": self.network.state_dict(),
            "average": self._average.state_dict() if self._average else {},
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "schedules": [schedule.state_dict() for schedule in self._schedules],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state that `state_dict` returned, of a step made with the same arguments."""
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
    """Builds a moving average with a smaller decay in the first steps, which forgets the initial weights soon."""

    def update(means: _Tensors, current: _Tensors, count: torch.Tensor | int) -> None:
        decay_now = min(decay, float((1 + count) / (10 + count)))
        get_ema_multi_avg_fn(decay_now)(means, current, count)  # type: ignore[no-untyped-call]

    return AveragedModel(network, multi_avg_fn=update)
