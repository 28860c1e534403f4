"""Cached features."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_data_loader import members, shard, tar_bytes
from torch import nn

from model.nn.encoder import Encoder
from model.vision.preprocessing import Preprocessing
from pipeline.datasets.prepared_split import PreparedSplit, read_split
from pipeline.storage.folder import Folder
from pipeline.training.data_loader import worker_share
from pipeline.training.distributed import WorldInfo
from pipeline.training.feature_cache import FeatureCache, compute_features

PREPROCESSING = Preprocessing(image_size=6, resize_size=6)
OPTIONS: dict[str, Any] = {"dtype": torch.float32, "num_decode_threads": 1}
ALONE = WorldInfo(0, 1, torch.device("cpu"))


@pytest.fixture
def split(tmp_path: Path) -> PreparedSplit:
    shard(tmp_path, "a.tar", tar_bytes(members(*range(5))))
    return read_split(tmp_path, "train")


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder("squeezenet1_1", 4)
    encoder.cnn = nn.Sequential(nn.Conv2d(3, 7, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return encoder


def features(encoder: Encoder, split: PreparedSplit) -> torch.Tensor:
    device = torch.device("cpu")
    return compute_features(encoder, split, worker_share(split, 0, 1), PREPROCESSING, device=device, **OPTIONS)


def test_the_cnn_is_asked_once(split: PreparedSplit, encoder: Encoder, tmp_path: Path) -> None:
    expected, asked = features(encoder, split), list[int]()
    encoder.cnn[3].register_forward_pre_hook(lambda *_: asked.append(1))
    folder = Folder(str(tmp_path / "run"))
    for _ in range(2):
        before = len(asked)
        found = FeatureCache(folder, encoder, PREPROCESSING).of("train", split, ALONE, **OPTIONS)
        assert torch.equal(found[0], expected) and found.shape == (1, 5, 7)
    assert len(asked) == before > 0


def test_another_cnn_or_split_is_asked_anew(split: PreparedSplit, encoder: Encoder, tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "run"))
    before = FeatureCache(folder, encoder, PREPROCESSING).of("train", split, ALONE, **OPTIONS)
    with torch.no_grad():
        encoder.cnn[0].bias += 1.0
    after = FeatureCache(folder, encoder, PREPROCESSING).of("train", split, ALONE, **OPTIONS)
    assert not torch.equal(before, after) and torch.equal(after[0], features(encoder, split))
    FeatureCache(folder, encoder, PREPROCESSING).of("val", split, ALONE, **OPTIONS)
    assert len(folder.names("features")) == 3


def test_what_several_workers_computed_is_found_by_any_number(
    split: PreparedSplit, encoder: Encoder, tmp_path: Path
) -> None:
    folder, expected = Folder(str(tmp_path / "run")), features(encoder, split)
    cache = FeatureCache(folder, encoder, PREPROCESSING)
    cache.of("train", split, ALONE, **OPTIONS)
    (whole,) = folder.names("features")
    for first, last in ((0, 2), (2, 5)):
        cache._write(whole.replace("0-5", f"{first}-{last}"), expected[first:last] + 1.0)
    folder.remove(f"features/{whole}")
    assert torch.equal(cache.of("train", split, ALONE, **OPTIONS)[0], expected + 1.0)
    folder.remove(f"features/{whole.replace('0-5', '0-2')}")  # a part alone is not enough
    assert torch.equal(cache.of("train", split, ALONE, **OPTIONS)[0], expected)


def test_views_are_crops_that_stay_the_same(split: PreparedSplit, encoder: Encoder, tmp_path: Path) -> None:
    cache = FeatureCache(Folder(str(tmp_path / "run")), encoder, PREPROCESSING)
    found = cache.of("train", split, ALONE, views=3, min_crop_scale=0.5, **OPTIONS)
    assert found.shape == (3, 5, 7) and torch.equal(found[0], features(encoder, split))
    assert not torch.allclose(found[0], found[1]) and not torch.allclose(found[1], found[2])
    assert torch.equal(cache.of("train", split, ALONE, views=3, min_crop_scale=0.5, **OPTIONS), found)
    again = FeatureCache(Folder(str(tmp_path / "other")), encoder, PREPROCESSING)
    assert torch.equal(again.of("train", split, ALONE, views=3, min_crop_scale=0.5, **OPTIONS), found)
