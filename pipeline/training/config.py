"""Progress callbacks and resumable state of a training run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import nn


@dataclass(frozen=True)
class Progress:
    """The progress of a run after a step."""

    stage: str
    epoch: int
    epochs: int
    step: int
    """Number of the step in the epoch, from 1."""
    steps: int
    """Number of steps in the epoch."""
    loss: float
    """Loss in nats per token."""
    images_per_s: float
    tokens_per_s: float
    step_s: float
    """Seconds per step; this and the speeds are averages since the epoch began or was resumed."""


class Callback(Protocol):
    """Receives the progress of a run, on each worker."""

    @property
    def stop(self) -> bool:
        """True if a stop was requested. Read at every step."""

    def progress(self, progress: Progress) -> None:
        """Called after a step, on the main worker."""

    def epoch(self, report: Mapping[str, Any]) -> None:
        """Called after an epoch, on all workers with the same report."""


@dataclass
class TrainingState:
    """The resumable state of a run, except that of the optimizers."""

    stage: int = 0
    history: str = ""
    """Reports of all epochs, as JSON lines."""
    best_score: float = -math.inf
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    """Weights of the best captioner."""
    step: int = 0
    """Number of steps, over all stages."""
    loss: float = 0.0
    """Summed loss of the epoch so far, in nats."""
    tokens: float = 0.0
    """Number of tokens of the epoch so far."""
    first_loss: float = math.nan
    """Loss of the stage's first step in nats per token; nan before it."""

    def count(self, loss: float, tokens: float) -> None:
        """Adds the summed loss and the number of tokens of a step."""
        self.step, self.loss, self.tokens = self.step + 1, self.loss + loss, self.tokens + tokens
        if math.isnan(self.first_loss):
            self.first_loss = loss / tokens

    def end_epoch(self, report: Mapping[str, Any], score: float, network: nn.Module) -> bool:
        """Adds the report of an epoch, and keeps the weights if its score is the best; returns whether it is."""
        self.loss, self.tokens = 0.0, 0.0
        self.history += json.dumps(report) + "\n"
        if score <= self.best_score:
            return False
        self.best_score = score
        self.best = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
        return True

    def state_dict(self) -> dict[str, Any]:
        """Returns the state in the form in which it is saved."""
        return asdict(self) | {"best": self.best}
