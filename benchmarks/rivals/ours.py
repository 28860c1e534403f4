"""Our own side: `shardtalk caption`, with a clock around its caption stage.

`python -m benchmarks.rivals.ours FOLDER CAPTIONER OUTPUT local|ray`
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any
from unittest import mock

import pyarrow as pa

from benchmarks.rivals.clock import tick
from jobs import cli


class Timed:
    """A stage whose batches the clock records."""

    def __init__(self, stage: Any) -> None:
        self._stage = stage

    def __call__(self, rows: pa.Table) -> pa.Table:
        """As the stage."""
        captioned = self._stage(rows)
        tick(len(captioned))
        return captioned

    def __getattr__(self, name: str) -> Any:
        """Returns an attribute of the stage."""
        return getattr(self._stage, name)


def timed_stage(*arguments: Any, **options: Any) -> Timed:
    """Takes the place of `CaptionStage` with the local runner."""
    from pipeline.inference.caption_stage import CaptionStage

    return Timed(CaptionStage(*arguments, **options))


def timed_actor() -> type:
    """Returns a class that takes the place of `CaptionActor` in the Ray runner."""
    from pipeline.inference.ray_runner import CaptionActor

    class TimedActor(CaptionActor):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self._caption: Any = Timed(self._caption)

    return TimedActor


def main(folder: str, captioner: str, output: str, runner: str) -> int:
    """Runs the command; returns its exit code."""
    local = ("jobs.captioning.flow", "CaptionStage", timed_stage)
    module, stage, replacement = (
        local if runner == "local" else ("pipeline.inference.ray_runner", "CaptionActor", timed_actor())
    )
    arguments = ["--captioner", captioner, "--search.beam_size", "5", "--runner", runner, "--output", output]
    with mock.patch.object(import_module(module), stage, replacement):
        return cli.main(["caption", folder, *arguments])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
