"""The monitor of training steps: progress, and the end of diverged runs."""

import math
from typing import Any

import pytest
import torch

from configs.stage import Stage
from pipeline.errors import TrainingError
from pipeline.training.config import Progress, TrainingState
from pipeline.training.step_monitor import StepMonitor


def stage(**options: Any) -> Stage:
    """Returns a stage with all features off except the given ones."""
    usual: dict[str, Any] = {
        **{"epochs": 2, "batch_size": 6, "max_grad_norm": 0.0, "label_smoothing": 0.0, "bag_of_words_weight": 0.0},
        **{"dropout": 0.0, "input_dropout": 0.0, "ema_decay": 0.0},
    }
    return Stage(**usual | options)


def watched(*sums: tuple[float, float, float], **options: Any) -> tuple[StepMonitor, TrainingState, list[Progress]]:
    """Returns the monitor after steps with these sums, from the fifth of ten on."""
    told, position = list[Progress](), TrainingState()
    monitor = StepMonitor(stage(**options), position, epoch_steps=10, step=4, report=told.append)
    for one in sums:
        monitor.record(torch.tensor(one))
    return monitor, position, told


def test_a_step_is_looked_at_when_the_next_is_under_way() -> None:
    monitor, position, told = watched((60.0, 20.0, 0.0), (30.0, 15.0, 0.0))
    assert [(one.step, one.steps, one.epoch, one.epochs, one.loss) for one in told] == [(5, 10, 1, 2, 3.0)]
    monitor.flush()
    monitor.flush()
    assert [one.loss for one in told] == [3.0, 2.0]
    assert (position.step, position.loss, position.tokens, position.first_loss) == (2, 90.0, 35.0, 3.0)


def test_a_flag_of_any_worker_asks_all_to_stop() -> None:
    monitor, _, _ = watched((1.0, 1.0, 0.0), (1.0, 1.0, 1.0))
    assert not monitor.stop_requested
    monitor.flush()
    assert monitor.stop_requested


@pytest.mark.parametrize("loss", [math.nan, math.inf, 62.0])
def test_a_run_that_has_lost_its_way_is_ended(loss: float) -> None:
    monitor, _, _ = watched((3.0, 1.0, 0.0), (59.0, 1.0, 0.0), (loss, 1.0, 0.0))
    with pytest.raises(TrainingError, match=r"stage language diverged at step 7: .*3 at its first step"):
        monitor.flush()


def test_rewards_may_be_of_any_size() -> None:
    monitor, _, told = watched((0.1, 1.0, 0.0), (-9.0, 1.0, 0.0), (99.0, 1.0, 0.0), samples_per_image=5)
    monitor.flush()
    assert [one.loss for one in told] == pytest.approx([0.1, -9.0, 99.0])
    monitor.record(torch.tensor((math.nan, 1.0, 0.0)))
    with pytest.raises(TrainingError):
        monitor.flush()
