"""Training data from prepared shards."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import encoded, picture, tar_bytes

from model.preprocessing import Preprocessing
from pipeline.errors import DataError, InputError
from pipeline.ingest import Example, pixel_batches, read_split

CAPTIONS = {"captions": ["A dog.", "Dogs run!"], "ids": [[1, 2], [3, 4, 5]]}


def members(*seeds: int) -> list[tuple[str, bytes]]:
    record = json.dumps(CAPTIONS).encode()
    return [
        member
        for seed in seeds
        for member in ((f"k{seed}.png", encoded(picture(seed), "PNG")), (f"k{seed}.json", record))
    ]


def shard(data: Path, name: str, content: bytes) -> None:
    (data / "train").mkdir(exist_ok=True)
    (data / "train" / name).write_bytes(content)


def example(seed: int, image: bytes | None = None) -> Example:
    return Example(f"k{seed}", image or encoded(picture(seed, 30 + seed, 20), "PNG"), ["a"], [[1]])


def test_examples_come_in_the_order_of_the_shards(tmp_path: Path) -> None:
    shard(tmp_path, "train-000001.tar", tar_bytes(members(5)))
    shard(tmp_path, "train-000000.tar", tar_bytes(members(7, 6)))
    found = read_split(tmp_path, "train")
    assert [one.image_id for one in found] == ["k7", "k6", "k5"]
    assert found[1] == Example("k6", encoded(picture(6), "PNG"), CAPTIONS["captions"], CAPTIONS["ids"])  # type: ignore[arg-type]


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_examples_is_refused(tmp_path: Path, split: str) -> None:
    shard(tmp_path, "train-000000.tar", tar_bytes([]))
    with pytest.raises(InputError, match=rf"{split} has no examples"):
        read_split(tmp_path, split)


@pytest.mark.parametrize("kept", ["png", "json"])
def test_a_sample_without_image_or_captions_is_named(tmp_path: Path, kept: str) -> None:
    shard(tmp_path, "a.tar", tar_bytes([*members(1), *(pair for pair in members(2) if pair[0].endswith(kept))]))
    with pytest.raises(InputError, match=r"a\.tar: k2 lacks"):
        read_split(tmp_path, "train")


@pytest.mark.parametrize(
    "content",
    [
        tar_bytes(members(1, 2))[:700],
        b"no tar at all" * 99,
        b"",
        tar_bytes([members(1)[0], ("k1.json", b"{")]),
        tar_bytes([members(1)[0], ("k1.json", b"\xff")]),
        tar_bytes([members(1)[0], ("k1.json", b"[]")]),
        tar_bytes([members(1)[0], ("k1.json", b'{"captions": []}')]),
    ],
    ids=["cut", "garbage", "empty", "half json", "not utf-8", "json list", "no ids"],
)
def test_a_damaged_shard_is_named(tmp_path: Path, content: bytes) -> None:
    shard(tmp_path, "a.tar", content)
    with pytest.raises(InputError, match=r"a\.tar is damaged"):
        read_split(tmp_path, "train")


def test_batches_hold_the_pixels_of_their_positions() -> None:
    preprocessing = Preprocessing(image_size=6, resize_size=8)
    examples, order = [example(seed) for seed in range(9)], [4, 0, 8, 3, 1, 7, 2]
    batches = list(pixel_batches(examples, order, preprocessing, batch_images=3, threads=2))
    assert [list(positions) for positions, _ in batches] == [[4, 0, 8], [3, 1, 7], [2]]
    for positions, pixels in batches:
        for position, found in zip(positions, pixels, strict=True):
            assert np.array_equal(found, preprocessing.pixels(picture(position, 30 + position, 20)))


def test_a_position_may_come_twice() -> None:
    ((_, pixels),) = pixel_batches([example(1)], [0, 0], Preprocessing(6, resize_size=6), batch_images=5, threads=1)
    assert pixels.shape == (2, 6, 6, 3)
    assert (pixels[0] == pixels[1]).all()


def test_a_damaged_image_stops_the_training() -> None:
    examples = [example(0), example(1, encoded(picture(1), "PNG")[:-80])]
    batches = pixel_batches(examples, [0, 1], Preprocessing(6, resize_size=6), batch_images=1, threads=1)
    next(batches)
    with pytest.raises(DataError):
        next(batches)
