"""What a training run is to do, who is told of it, and where it stands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch


@dataclass(frozen=True)
class Progress:
    """A step that was done."""

    stage: str
    epoch: int
    epochs: int
    step: int
    """Of the epoch, from 1."""
    steps: int
    """Of the epoch."""
    loss: float
    """Nats per token."""
    images_per_s: float
    tokens_per_s: float
    step_s: float
    """All of them since the epoch began, or was gone on with."""


class Callback(Protocol):
    """Who is told of a run, on each worker."""

    @property
    def stop(self) -> bool:
        """Whether somebody asked to stop. Asked at every step."""

    def progress(self, progress: Progress) -> None:
        """After a step. Of the first worker."""

    def epoch(self, report: Mapping[str, Any]) -> None:
        """After an epoch. Of all workers, with the same report."""


@dataclass
class TrainingState:
    """Where a run stands, but for its trainer, and what it has found."""

    stage: int = 0
    history: str = ""
    """JSON by line."""
    best_score: float = -math.inf
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    """The best captioner's weights."""
    step: int = 0
    """Of all stages."""
    loss: float = 0.0
    """Sum over the epoch so far."""
    tokens: float = 0.0
    """Of it."""
    first_loss: float = math.nan
    """Nats per token at the stage's first step."""

    def count(self, loss: float, tokens: float) -> None:
        """A step's sums."""
        self.step, self.loss, self.tokens = self.step + 1, self.loss + loss, self.tokens + tokens
        if math.isnan(self.first_loss):
            self.first_loss = loss / tokens

    def state_dict(self) -> dict[str, Any]:
        """As it is saved."""
        return asdict(self) | {"best": self.best}
