"""Workers of Ray that are killed while they read or caption."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
from conftest import Run, assert_same, rows_of, tar_of_pictures
from faults import Survived, chosen

import jobs.captioning.flow
import pipeline.inference.ray_runner
from cluster.connect import Resources
from pipeline.inference.decode_stage import DecodeStage
from pipeline.inference.ray_runner import CaptionActor
from pipeline.readers.reader import read

IMAGES = 8


def die_once(mark: Path) -> None:
    """Kills this process, the first time only."""
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


class DyingDecode(DecodeStage):
    """A decode stage that kills its process at a row; without GPUs this is the captioner's actor."""

    row, mark = 0, Path()

    def __call__(self, rows: pa.Table) -> pa.Table:
        if self.row in rows["index"].to_pylist():
            die_once(self.mark)
        return super().__call__(rows)


class DyingRead:
    """A reader that kills its process after it has read a row."""

    def __init__(self, row: int, mark: Path) -> None:
        self.row, self.mark = row, mark

    def __call__(self, *arguments: Any, **options: Any) -> Iterator[pa.Table]:
        for table in read(*arguments, **options):
            yield table
            if self.row in table["index"].to_pylist():
                die_once(self.mark)


class FaultyStart(CaptionActor):
    """An actor whose first attempts to start fail: twice in loading the captioner, once by a killed process."""

    marks = Path()

    def __init__(self, *arguments: Any) -> None:
        die_once(self.marks / "killed")
        for name in ("first", "second"):
            if not (self.marks / name).exists():
                (self.marks / name).touch()
                raise OSError("the store does not answer")
        super().__init__(*arguments)


def test_a_captioner_that_does_not_start_at_once_costs_none(  # noqa: PLR0917
    local_ray: Resources,
    tmp_path: Path,
    caption: Run,
    shardtalk: Run,
    survived: Survived,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    FaultyStart.marks = tmp_path
    monkeypatch.setattr(pipeline.inference.ray_runner, "CaptionActor", FaultyStart)
    tar = tar_of_pictures(tmp_path / "s.tar", IMAGES)
    code, said = caption(tar, "--runner", "ray", "--ray.max_actors", 1)
    assert code == 0, said
    assert (tmp_path / "second").exists() and shardtalk("verify", tmp_path / "out", tar)[0] == 0
    survived("model actor that dies or fails while it starts", "it is started again", 3)


@pytest.mark.parametrize("victim", ["model actor", "reader"])
def test_a_worker_killed_at_any_row_costs_none(  # noqa: PLR0917
    victim: str,
    local_ray: Resources,
    tmp_path: Path,
    caption: Run,
    shardtalk: Run,
    survived: Survived,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests
    tar = tar_of_pictures(tmp_path / "s.tar", IMAGES)
    assert caption(tar, output=tmp_path / "undisturbed")[0] == 0
    for row in chosen(range(IMAGES), few=1):
        mark, output = tmp_path / f"died-at-{row}", tmp_path / f"out{row}"
        if victim == "reader":
            monkeypatch.setattr(pipeline.inference.ray_runner, "read", DyingRead(row, mark))
        else:
            DyingDecode.row, DyingDecode.mark = row, mark
            monkeypatch.setattr(jobs.captioning.flow, "DecodeStage", DyingDecode)
        code, said = caption(tar, "--runner", "ray", "--ray.max_actors", 1, "--batch_size", 3, output=output)
        assert code == 0, said
        assert mark.exists()
        assert_same(rows_of(output), rows_of(tmp_path / "undisturbed"))
        assert shardtalk("verify", output, tar)[0] == 0
        survived(f"SIGKILL of a {victim}", "the job goes on")
