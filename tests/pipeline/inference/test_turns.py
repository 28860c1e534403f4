"""Batches that are captioned in turn, each begun while the one before it is captioned, in sizes found by trial."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from conftest import encoded, picture
from stage_rows import SEARCH, caption_stage, decode_stage, encoded_rows
from tolerances import same_log_prob

from model.captioner.base import Candidate, Caption
from pipeline.captioners.network_captioner import NetworkCaptioner
from pipeline.captioners.protocol import ImageCaptioner
from pipeline.errors import CaptionerError
from pipeline.inference.caption_stage import CaptionStage
from pipeline.inference.decode_stage import DecodeStage
from pipeline.inference.ray_runner import CaptionActor
from pipeline.inference.run_state import RunState
from pipeline.schema import MEASURES


class Recording(ImageCaptioner):
    """Records its calls; captions are the widths of the images."""

    identity = "recording"
    may_be_tried = True

    def __init__(self, error: Exception | None = None) -> None:
        self.calls, self._error = list[tuple[str, list[int]]](), error

    def begin(self, images: Any) -> Any:
        self.calls.append(("begin", [image.width for image in images]))
        if self._error:
            raise self._error
        return tuple(images)

    def caption(self, images: Any) -> Sequence[Caption]:
        self.calls.append(("begun" if isinstance(images, tuple) else "whole", [image.width for image in images]))
        return [Caption([Candidate(str(image.width))]) for image in images]


def tables(captioner: ImageCaptioner, *widths: Sequence[int]) -> list[pa.Table]:
    decode = DecodeStage(captioner.inputs)
    rows = [[encoded(picture(width, width), "PNG") if width else b"no image" for width in each] for each in widths]
    return [decode(encoded_rows(*each)) for each in rows]


def captions(found: Sequence[pa.Table]) -> list[str | None]:
    return [caption for rows in found for caption in rows["caption"].to_pylist()]


def test_a_batch_is_begun_before_the_one_before_it_is_captioned() -> None:
    captioner = Recording()
    stage = CaptionStage(captioner, device="cpu", begin_ahead=True)
    found = list(stage.in_turn(tables(captioner, [1, 2], [3, 0], [0], [4])))
    assert captions(found) == ["1", "2", "3", None, None, "4"]
    assert captioner.calls == [
        ("begin", [1, 2]),
        ("begin", [3]),
        ("begun", [1, 2]),
        ("begun", [3]),
        ("begin", [4]),
        ("begun", [4]),
    ]


def test_on_a_cpu_nothing_is_begun_ahead() -> None:
    captioner = Recording()
    list(CaptionStage(captioner, device="cpu").in_turn(tables(captioner, [1, 2], [3])))
    assert captioner.calls == [("whole", [1, 2]), ("whole", [3])]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("no")], ids=type)
def test_a_batch_that_cannot_be_begun_is_captioned_when_its_turn_comes(error: Exception) -> None:
    captioner = Recording(error)
    stage = CaptionStage(captioner, device="cpu", begin_ahead=True)
    assert captions(list(stage.in_turn(tables(captioner, [1, 2], [3])))) == ["1", "2", "3"]
    assert [kind for kind, _ in captioner.calls] == ["begin", "begin", "whole", "whole"]


def test_what_stops_a_job_stops_it_from_ahead_as_well() -> None:
    captioner = Recording(CaptionerError("the CNN cannot be compiled here"))
    stage = CaptionStage(captioner, device="cpu", begin_ahead=True)
    with pytest.raises(CaptionerError, match="cannot be compiled"):
        list(stage.in_turn(tables(captioner, [1])))


def test_the_captioners_own_work_ahead_changes_no_caption(captioner: Path, second_captioner: Path) -> None:
    both = [captioner, second_captioner]
    images = [b"no image", *(encoded(picture(seed, 40 + seed)) for seed in range(9))]
    rows = decode_stage(*both)(encoded_rows(*images))
    network = NetworkCaptioner([*map(str, both)], SEARCH, dtype="float32")
    stage = CaptionStage(network, device="cpu", begin_ahead=True)
    found = pa.concat_tables(stage.in_turn([rows.slice(0, 4), rows.slice(4, 1), rows.slice(5)]))
    expected = caption_stage(*both)(rows)
    inexact = ["log_prob", "candidates", *MEASURES.names]
    assert found.drop(inexact).equals(expected.drop(inexact))
    for log_prob, row in zip(found["log_prob"].to_pylist(), expected.to_pylist(), strict=True):
        assert log_prob == (row["log_prob"] and same_log_prob(row["log_prob"], row["num_tokens"]))


class LocalRunState(RunState):
    """The state of a run whose captioner is in this process."""

    def add_this_actor(self) -> None:
        self.add("here")


@pytest.mark.parametrize(
    ("begin_ahead", "calls"),
    [(False, ["whole"] * 3), (True, ["begin", "begin", "begun", "begin", "begun", "begun"])],
    ids=["cpu", "gpu"],
)
def test_an_actor_divides_its_rows_evenly_and_captions_them_in_turn(begin_ahead: bool, calls: list[str]) -> None:
    captioner, state = Recording(), LocalRunState()
    make_stage = partial(CaptionStage, captioner, device="cpu", begin_ahead=begin_ahead)
    actor = CaptionActor(state, make_stage, 4)  # type: ignore[arg-type]
    (rows,) = tables(captioner, range(1, 10))
    found = actor(rows)
    assert captions([found]) == [str(width) for width in range(1, 10)]
    assert [kind for kind, _ in captioner.calls] == calls
    assert sorted({len(widths) for _, widths in captioner.calls}) == [3]
    assert state.plan([("caption", "0", 0)]) is None and state.count() == 1


def test_with_rows_enough_the_batch_size_is_found_by_trial(caplog: pytest.LogCaptureFixture) -> None:
    captioner = Recording()
    widths = [range(start, start + 50) for start in range(1, 301, 50)]
    rows = tables(captioner, *widths)
    stage = CaptionStage(captioner, device="cpu", trial_rows=256, begin_ahead=False)
    with caplog.at_level(logging.INFO):
        found = list(stage.in_turn(rows))
    assert captions(found) == [str(width) for width in range(1, 301)]
    sizes = {len(table) for table in found[:-1]}
    assert len(sizes) == 1 and sizes <= {64, 128, 256}
    assert f"batches of {sizes.pop()} images, found by trial" in caplog.text
    assert set(found[0]["batch_images"].to_pylist()) == {len(found[0])}
    again = list(stage.in_turn(rows[:2]))  # as an actor is called again, which tries no more
    assert captions(again) == [str(width) for width in range(1, 101)]
    assert caplog.text.count("found by trial") == 1


@pytest.mark.parametrize("trial_rows", [0, 101])
def test_with_too_few_rows_each_table_is_a_batch(trial_rows: int) -> None:
    captioner = Recording()
    stage = CaptionStage(captioner, device="cpu", trial_rows=trial_rows)
    found = list(stage.in_turn(tables(captioner, range(1, 51), range(51, 101))))
    assert [len(table) for table in found] == [50, 50]
    assert [kind for kind, _ in captioner.calls] == ["whole"] * 2


def test_an_image_at_which_the_trial_fails_is_an_error_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    captioner = Recording()
    whole = captioner.caption

    def failing(images: Any) -> Sequence[Caption]:
        if any(image.width == 7 for image in images):
            raise ValueError("seven")
        return whole(images)

    monkeypatch.setattr(captioner, "caption", failing)
    stage = CaptionStage(captioner, device="cpu", trial_rows=64)
    found = list(stage.in_turn(tables(captioner, range(1, 51), range(51, 101))))
    assert captions(found) == [None if width == 7 else str(width) for width in range(1, 101)]


def test_a_captioner_whose_calls_count_is_never_tried() -> None:
    captioner = Recording()
    captioner.may_be_tried = False
    stage = CaptionStage(captioner, device="cpu", trial_rows=64)
    list(stage.in_turn(tables(captioner, range(1, 101))))
    assert captioner.calls == [("whole", list(range(1, 101)))]
