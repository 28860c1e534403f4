"""The stages and training inputs on cuda, compared with the CPU. SHARDTALK_TEST_DEVICE=cpu runs most tests there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import jpeg, tar_bytes
from devices import near_log_prob
from stage_rows import caption_stage, decode_stage, encoded_rows
from test_data_loader import members, shard
from test_objectives import NUMBERS, VOCABULARY

from model.captioner import Captioner, checkpoint
from model.nn.captioning_network import Architecture
from model.nn.encoder import Encoder
from model.vision.preprocessing import Preprocessing
from pipeline.datasets.prepared_split import PreparedSplit, read_split
from pipeline.inference.local_runner import run_local
from pipeline.inputs.listing import list_inputs
from pipeline.output.commit_log import CommitLog
from pipeline.schema import MEASURES
from pipeline.training import step_inputs
from pipeline.training.data_loader import in_order, worker_share
from pipeline.training.feature_cache import compute_features
from pipeline.training.objectives import self_critical_batches

pytestmark = pytest.mark.cuda

SHIPPED = "flickr8k-mobilenet-v2"
PREPROCESSING = Preprocessing(image_size=32, resize_size=32)
CPU = torch.device("cpu")


def assert_same(rows: pa.Table, expected: pa.Table) -> None:
    """Asserts equal rows, except for rounding in log-probabilities and for measured times."""
    inexact = ["log_prob", "candidates", *MEASURES.names]
    assert rows.drop(inexact).equals(expected.drop(inexact))
    found, wanted = (table["log_prob"].drop_null().to_pylist() for table in (rows, expected))
    assert found == near_log_prob(wanted)


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_the_local_runners_rows_are_those_of_the_cpu(
    batch_size: int, captioner: Path, tmp_path: Path, device: torch.device
) -> None:
    named = {f"{i}.jpg": jpeg(i) if i != 4 else b"no image" for i in range(8)}
    (tmp_path / "s.tar").write_bytes(tar_bytes(named))
    decode = decode_stage(captioner)

    def rows(where: torch.device, batch_size: int) -> pa.Table:
        spans = CommitLog().remaining_work(list_inputs([str(tmp_path / "s.tar")]).shards)
        stage = partial(caption_stage, captioner, device=str(where))
        return pa.concat_tables(run_local(spans, decode, stage, batch_size=batch_size, num_threads=2))

    expected = rows(CPU, 3)
    assert len(set(expected["caption"].to_pylist())) > 5
    assert_same(rows(device, batch_size), expected)


@contextmanager
def at_most(size_bytes: int) -> Iterator[None]:
    """Limits the device memory of this process."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(size_bytes / torch.cuda.get_device_properties().total_memory)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Records the number of images in each batch of the captioner."""
    sizes, caption = list[int](), Captioner.caption_pixels

    def counted(self: Captioner, views: dict[Preprocessing, Any], *others: Any) -> Any:
        sizes.append(len(next(iter(views.values()))))
        return caption(self, views, *others)

    monkeypatch.setattr(Captioner, "caption_pixels", counted)
    return sizes


@pytest.fixture
def caption(cuda: torch.device) -> Callable[[pa.Table], pa.Table]:
    return caption_stage(SHIPPED, device=str(cuda))


def decoded(count: int) -> pa.Table:
    return decode_stage(checkpoint.find(SHIPPED))(encoded_rows(*map(jpeg, range(count))))


def test_a_batch_that_the_gpu_cannot_hold_is_halved(
    caption: Callable[[pa.Table], pa.Table], batches: list[int]
) -> None:
    rows = decoded(64)
    expected = caption(rows)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    caption(rows.slice(0, 8))
    enough = torch.cuda.max_memory_reserved()
    batches.clear()
    with at_most(int(1.5 * enough)):
        found = caption(rows)
    assert batches[0] == 64 and 8 <= min(batches) < 64
    assert found["error_code"].null_count == 64
    assert_same(found, expected)


def test_an_image_that_the_gpu_cannot_hold_is_an_error_and_the_next_is_not(
    caption: Callable[[pa.Table], pa.Table], batches: list[int]
) -> None:
    rows = decoded(3)
    torch.cuda.empty_cache()
    with at_most(torch.cuda.memory_reserved()):
        found = caption(rows)
    assert found["error_code"].to_pylist() == ["out_of_memory"] * 3
    assert sorted(batches) == [1, 1, 1, 2, 3]
    assert caption(rows)["error_code"].null_count == 3


@pytest.fixture
def split(tmp_path: Path) -> PreparedSplit:
    other = json.dumps({"captions": ["Far dogs."], "ids": [[5, 3]]}).encode()  # else no word would be worth anything
    shard(tmp_path, "a.tar", tar_bytes([members(0)[0], ("k0.json", other), *members(1, 2, 3, 4)]))
    return read_split(tmp_path, "train")


def test_the_images_of_a_step_are_those_of_the_cpu(split: PreparedSplit, device: torch.device) -> None:
    steps = []
    for where in (CPU, device):
        order = in_order(split, worker_share(split, 0, 1), 2)
        given = step_inputs.image_inputs(split, order, PREPROCESSING, device=where, num_decode_threads=2, first_step=0)
        random = np.random.default_rng(1)
        steps.append(
            [
                part
                for step in given
                for part in step_inputs.accumulation_parts(*step, 2, min_crop_scale=0.5, random=random)
            ]
        )
    assert [numbers.tolist() for numbers, _ in steps[0]] == [[0], [1], [2], [3], [4]]
    for (numbers, found), (others, expected) in zip(steps[1], steps[0], strict=True):
        assert numbers.tolist() == others.tolist()
        assert found["images"].device.type == device.type
        torch.testing.assert_close(found["images"].cpu(), expected["images"], atol=1e-3, rtol=1e-3)


def test_features_are_those_of_the_cpu(split: PreparedSplit, device: torch.device) -> None:
    torch.manual_seed(0)
    encoder = Encoder("resnet18", 4)
    options: dict[str, Any] = {"dtype": torch.float32, "num_decode_threads": 2}
    numbers = worker_share(split, 0, 1)
    expected = compute_features(encoder, split, numbers, PREPROCESSING, device=CPU, **options)
    found = compute_features(encoder.to(device), split, numbers, PREPROCESSING, device=device, **options)
    assert (found.device, found.shape) == (CPU, (5, 512))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("baseline", ["others", "greedy"])
def test_drawn_captions_are_worth_what_they_are_on_the_cpu(
    baseline: str, split: PreparedSplit, device: torch.device
) -> None:
    lessons = []
    for where in (CPU, device):
        torch.manual_seed(0)
        network = (
            Architecture(vocabulary_size=VOCABULARY.size, cnn="squeezenet1_1", embedding_size=4, hidden_size=6)
            .build()
            .to(where)
        )
        lesson = self_critical_batches(
            network,
            split,
            VOCABULARY,
            samples_per_image=4,
            temperature=0.5,
            max_tokens=5,
            baseline=baseline,
            captions_per_image=2,
            cross_entropy_weight=0.25,
        )
        features = torch.randn(3, network.encoder.feature_size, generator=torch.Generator().manual_seed(1))
        lessons.append(lesson(NUMBERS, {"features": features.to(where)}, np.random.default_rng(0)))
    expected, found = lessons
    assert found.words.device.type == device.type
    assert torch.equal(found.words.cpu(), expected.words)
    assert found.caption_weights is not None and expected.caption_weights is not None
    torch.testing.assert_close(found.caption_weights.cpu(), expected.caption_weights)
    assert found.caption_weights.unique().numel() > 2
