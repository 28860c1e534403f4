"""Reads the loss of each step one step late, to avoid synchronising with the device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch

from configs.stage import Stage
from pipeline.errors import TrainingError
from pipeline.training.config import Progress, TrainingState

DIVERGENCE_FACTOR = 20.0
"""Multiple of its first loss at which a stage counts as diverged."""


class StepMonitor:
    """Adds the sums of each step to the training state, and reports its progress.

    Args:
        stage: the stage of training.
        state: the training state to which the sums are added.
        epoch_steps: number of steps in an epoch.
        step: number of steps of the stage that are already done.
        report: receives the progress after each step.
    """

    def __init__(
        self, stage: Stage, state: TrainingState, *, epoch_steps: int, step: int, report: Callable[[Progress], None]
    ) -> None:
        self.stop_requested = False
        self._stage, self._state, self._epoch_steps, self._report = stage, state, epoch_steps, report
        self._step, self._steps, self._began_s = step, 0, time.monotonic()
        self._sums: torch.Tensor | None = None

    def record(self, sums: torch.Tensor) -> None:
        """Processes the step before, and keeps the result of `TrainStep.step` for the next call."""
        self.flush()
        self._sums = sums

    def flush(self) -> None:
        """Processes the last recorded step, if there is one. Raises TrainingError if training has diverged."""
        if self._sums is None:
            return
        loss, tokens, flags = self._sums.tolist()
        self._sums = None
        self._step, self._steps = self._step + 1, self._steps + 1
        self.stop_requested = self.stop_requested or flags > 0
        self._state.count(loss, tokens)
        self._check_divergence(loss / tokens)
        epoch, step = divmod(self._step - 1, self._epoch_steps)
        step_s = (time.monotonic() - self._began_s) / self._steps
        self._report(
            Progress(
                stage=self._stage.name,
                epoch=epoch + 1,
                epochs=self._stage.epochs,
                step=step + 1,
                steps=self._epoch_steps,
                loss=loss / tokens,
                images_per_s=self._stage.batch_size / step_s,
                tokens_per_s=tokens / step_s,
                step_s=step_s,
            )
        )

    def _check_divergence(self, loss: float) -> None:
        first = self._state.first_loss
        rewarded = self._stage.samples_per_image > 0  # the loss may have either sign
        if not math.isfinite(loss) or (not rewarded and loss > DIVERGENCE_FACTOR * first):
            raise TrainingError(
                f"stage {self._stage.name} diverged at step {self._step}: {loss:.3g} nats per token, "
                f"{first:.3g} at its first step; try a lower learning rate"
            )
