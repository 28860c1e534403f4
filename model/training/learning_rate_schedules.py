"""Learning-rate schedules: the share of the peak rate at each step (`configs.optimizer.Schedule`)."""

from __future__ import annotations

import math

import torch
from torch.optim.lr_scheduler import LambdaLR

from configs.optimizer import Schedule


def learning_rate_factor(schedule: Schedule, step: int, steps: int) -> float:
    """Returns the share of the peak learning rate at `step` of `steps`, counted from 0; in [0, 1]."""
    warmup_steps = min(schedule.warmup_steps, steps // 4)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule.shape == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))
    periods = max(0, step - schedule.start_step) / schedule.every_steps
    if schedule.shape == "halving":
        return float(schedule.factor**periods)
    return float(schedule.factor ** math.floor(periods)) if schedule.shape == "step" else 1.0


def build_scheduler(schedule: Schedule, optimizer: torch.optim.Optimizer, steps: int) -> LambdaLR:
    """Builds the scheduler of an optimiser that will take `steps` steps."""
    return LambdaLR(optimizer, lambda step: learning_rate_factor(schedule, step, steps))
