"""Training, without a word on where data comes from or how many workers there are.

Letters: B images, N captions per image, T words of the longest caption.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from model.device import autocast
from model.loss import bag_of_words_loss, caption_loss, targets
from model.network import Network
from model.vocabulary import END


def pad(captions: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Word ids of captions → (captions, T) int64 filled up with END, and their lengths (captions,)."""
    lengths = torch.tensor([len(caption) for caption in captions])
    words = torch.full((len(captions), max(1, int(lengths.max()))), END)
    for row, caption in zip(words, captions, strict=True):
        row[: len(caption)] = torch.tensor(caption, dtype=torch.int64)
    return words, lengths


def summed_loss(
    network: Network,
    words: torch.Tensor,
    lengths: torch.Tensor,
    *,
    images: torch.Tensor | None = None,
    features: torch.Tensor | None = None,
    caption_weights: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
    word_weights: torch.Tensor | None = None,
    foretelling_weight: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Negative log-likelihood in nats summed over the batch, and its number of tokens.

    Args:
        words, lengths: from `pad`; (B × N, T) and (B × N,).
        images, features: as `Network.forward` takes them.
        caption_weights, label_smoothing: as `caption_loss` takes them.
        word_weights: as `bag_of_words_loss` takes them.
        foretelling_weight: of that loss of a caption, beside the loss of a token; 0 leaves it out.
        dtype: of autocast; float32 computes as it is.
    """
    with autocast(words.device, dtype):
        logits = network(words, images=images, features=features)
    total, tokens = caption_loss(
        logits[:, 1:], targets(words, lengths), label_smoothing=label_smoothing, caption_weights=caption_weights
    )
    if word_weights is not None and foretelling_weight:
        total = total + foretelling_weight * bag_of_words_loss(logits[:, 0], words, lengths, word_weights)
    return total, tokens


class Trainer:
    """A network, its optimiser, learning-rate schedule and moving average, for one stage of training.

    Args:
        network: changed in place.
        steps: how many there will be, which sets the schedule.
        learning_rate: of decoder and projection, at its peak.
        cnn_learning_rate: of the CNN; 0 freezes it. Its batch norms keep their statistics either way.
        weight_decay: AdamW's; biases, norms and word embeddings are not decayed.
        warmup_steps: in which the rates rise in a line; then they fall to 0 along a cosine.
        clip_norm: largest norm of the gradient.
        label_smoothing: share of the probability spread over the vocabulary.
        dropout: probability in the decoder. 0 for captions that the network drew itself: it must be asked as it drew.
        average_decay: of the moving average of the weights, in [0, 1).
        dtype: of matrix products.
        word_weights, foretelling_weight: as `summed_loss` takes them.
    """

    def __init__(
        self,
        network: Network,
        *,
        steps: int,
        learning_rate: float,
        cnn_learning_rate: float,
        weight_decay: float,
        warmup_steps: int,
        clip_norm: float,
        label_smoothing: float,
        dropout: float,
        average_decay: float,
        dtype: torch.dtype,
        word_weights: torch.Tensor | None = None,
        foretelling_weight: float = 0.0,
    ) -> None:
        self.network = network
        self._clip_norm = clip_norm
        self._loss_options: dict[str, Any] = {
            "label_smoothing": label_smoothing,
            "word_weights": word_weights,
            "foretelling_weight": foretelling_weight,
            "dtype": dtype,
        }
        network.encoder.cnn.requires_grad_(cnn_learning_rate > 0.0)
        network.decoder.set_dropout(dropout)
        groups = _parameter_groups(network, learning_rate, cnn_learning_rate, weight_decay)
        self._optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
        warmup_steps = min(warmup_steps, steps // 4)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: warm_cosine(step, steps=steps, warmup_steps=warmup_steps)
        )
        # Slower as it goes: the first weights are soon forgotten.
        self._average: AveragedModel = AveragedModel(
            network,
            avg_fn=lambda mean, new, count: torch.lerp(mean, new, 1.0 - min(average_decay, (1 + count) / (10 + count))),
        )

    @property
    def averaged(self) -> Network:
        """The network with the moving average of the weights, in evaluation mode."""
        return cast(Network, self._average.module.eval())

    def step(
        self,
        words: torch.Tensor,
        lengths: torch.Tensor,
        *,
        images: torch.Tensor | None = None,
        features: torch.Tensor | None = None,
        caption_weights: torch.Tensor | None = None,
    ) -> float:
        """Updates the weights by one batch (as `summed_loss` takes it); returns its loss in nats per token."""
        self.network.train()
        self.network.encoder.cnn.eval()
        total, tokens = summed_loss(
            self.network,
            words,
            lengths,
            images=images,
            features=features,
            caption_weights=caption_weights,
            **self._loss_options,
        )
        loss = total / tokens
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self._clip_norm)
        self._optimizer.step()
        self._schedule.step()
        self._average.update_parameters(self.network)
        return float(loss.detach())


def _parameter_groups(
    network: Network, learning_rate: float, cnn_learning_rate: float, weight_decay: float
) -> list[dict[str, object]]:
    cnn = {id(parameter) for parameter in network.encoder.cnn.parameters()}
    embedding = id(network.decoder.embedding.weight)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if parameter.requires_grad:
            rate = cnn_learning_rate if id(parameter) in cnn else learning_rate
            decay = weight_decay if parameter.ndim > 1 and id(parameter) != embedding else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]


def warm_cosine(step: int, *, steps: int, warmup_steps: int) -> float:
    """Factor of the learning rate at `step` of `steps`: up to 1 in a line, then down to 0 along a cosine."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))
