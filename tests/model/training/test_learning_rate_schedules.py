"""Learning-rate schedules."""

import pytest

from configs.optimizer import Schedule
from model.training.learning_rate_schedules import learning_rate_factor


def schedule(shape: str, **options: float) -> Schedule:
    usual = {"warmup_steps": 0, "start_step": 0, "every_steps": 10, "factor": 0.5}
    return Schedule(shape, **usual | options)  # type: ignore[arg-type]


def test_the_rate_rises_in_a_line_and_falls_along_a_cosine() -> None:
    rates = [learning_rate_factor(schedule("cosine", warmup_steps=4), step, 16) for step in range(17)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[10] == pytest.approx(0.5)
    assert rates[16] == pytest.approx(0.0)
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_warming_up_takes_no_more_than_a_quarter() -> None:
    assert [learning_rate_factor(schedule("constant", warmup_steps=9), step, 8) for step in range(4)] == [
        0.5,
        1.0,
        1.0,
        1.0,
    ]


def test_halving_is_smooth_and_a_step_is_not() -> None:
    """neuraltalk2: the rate times 0.5 to the power of (step - start) / every, from the start on."""
    steps = range(0, 40, 5)
    smooth = [learning_rate_factor(schedule("halving", start_step=10), step, 40) for step in steps]
    assert smooth == pytest.approx([1, 1, 1, 0.5**0.5, 0.5, 0.5**1.5, 0.25, 0.5**2.5])
    assert [learning_rate_factor(schedule("step", start_step=10), step, 40) for step in steps] == [
        1,
        1,
        1,
        1,
        0.5,
        0.5,
        0.25,
        0.25,
    ]
