"""Messages are records of loggers, and lines on stderr."""

import logging
from types import SimpleNamespace

import pytest

from jobs.console import messages
from jobs.console.training_progress import TrainingProgress
from pipeline.training.config import Progress


def test_a_record_is_an_escaped_line_of_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    messages.show_on_stderr()
    messages.show_on_stderr()
    logging.getLogger("shardtalk.caption").info("50% of \x1b[2J\nfile")
    logging.getLogger("shardtalk.caption").debug("not for the user")
    found = capsys.readouterr()
    assert (found.out, found.err) == ("", "shardtalk caption: 50% of \\x1b[2J\\nfile\n")


def test_a_log_of_training_has_share_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    messages.show_on_stderr()
    monkeypatch.setattr("jobs.console.progress.LOG_EVERY_S", 0.0)
    with TrainingProgress(SimpleNamespace(requested=False)) as shown:  # type: ignore[arg-type]
        shown.progress(Progress("finetune", 2, 3, 5, 20, 2.5, images_per_s=30.0, tokens_per_s=400.0, step_s=4.0))
    expected = "finetune 2/3, step 5 of 20 (25%): loss 2.500, images/s 30.0, tokens/s 400; 0:01:00 left"
    assert capsys.readouterr().err == f"shardtalk train: {expected}\n"
