"""Training data from prepared shards."""

import json
from pathlib import Path, PurePath

import numpy as np
import pytest
from conftest import encoded, picture, tar_bytes

from model.vision.preprocessing import Preprocessing
from pipeline.datasets.prepared_split import PreparedSplit, read_split, read_vocabulary
from pipeline.errors import InputError
from pipeline.training.data_loader import EpochOrder, in_order, pixel_batches, shuffle_epoch, worker_share

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


def test_a_split_knows_its_images_in_the_order_of_the_shards(tmp_path: Path) -> None:
    shard(tmp_path, "train-000001.tar", tar_bytes(members(5)))
    shard(tmp_path, "train-000000.tar", tar_bytes(members(7, 6)))
    found = read_split(tmp_path, "train", captions=True)
    assert found.image_ids == ("k7", "k6", "k5")
    assert [PurePath(name).name for name in found.shards] == ["train-000000.tar", "train-000001.tar"]
    assert found.shard.tolist() == [0, 0, 1]
    assert [found.ids(number) for number in range(3)] == [CAPTIONS["ids"]] * 3
    assert found.captions == (tuple(CAPTIONS["captions"]),) * 3
    assert read_split(tmp_path, "train").captions == ()


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


def test_an_image_without_captions_is_named(tmp_path: Path) -> None:
    shard(tmp_path, "a.tar", tar_bytes([members(1)[0], ("k1.json", b'{"captions": [], "ids": []}')]))
    with pytest.raises(InputError, match=r"a\.tar: k1 has no captions"):
        read_split(tmp_path, "train")


SHARDS = (5, 1, 7, 3)
"""Images in each."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, seed = tmp_path_factory.mktemp("data"), 0
    for number, images in enumerate(SHARDS):
        shard(folder, f"{number}.tar", tar_bytes(members(*range(seed, seed + images))))
        seed += images
    return folder


@pytest.fixture(scope="module")
def split(data: Path) -> PreparedSplit:
    return read_split(data, "train")


def epoch(
    split: PreparedSplit, worker: int = 0, workers: int = 1, *, seed: int = 1, batch: int = 4, buffer: int = 99
) -> EpochOrder:
    return shuffle_epoch(split, np.random.default_rng(seed), worker, workers, batch_size=batch, buffer_images=buffer)


@pytest.mark.parametrize("buffer", [1, 3, 99])
@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_every_image_comes_once_over_all_workers(split: PreparedSplit, workers: int, buffer: int) -> None:
    orders = [epoch(split, worker, workers, batch=10, buffer=buffer) for worker in range(workers)]
    batches = [list(order.batches()) for order in orders]
    used = [number for each in batches for batch in each for number in batch.tolist()]
    assert sorted(used) == list(range(len(split)))
    assert {len(each) for each in batches} == {-(-len(split) // 10)}
    sizes = [len(batch) for each in batches for batch in each]
    assert max(sizes) - min(sizes) <= 1
    for order in orders:
        assert sorted(order.read) == sorted(order.used)


def test_an_epoch_follows_from_its_seed(split: PreparedSplit) -> None:
    assert epoch(split).used.tolist() == epoch(split).used.tolist() != epoch(split, seed=2).used.tolist()


def test_shards_are_read_front_to_back(split: PreparedSplit) -> None:
    read = epoch(split, seed=2).read
    assert read.tolist() != sorted(read.tolist())
    for number in range(len(SHARDS)):
        there = read[split.shard[read] == number]
        assert np.array_equal(there, np.flatnonzero(split.shard == number))


def test_no_more_wait_than_the_buffer_holds(split: PreparedSplit) -> None:
    order = epoch(split, buffer=3)
    arrival = {number: place for place, number in enumerate(order.read.tolist())}
    assert all(arrival[number] - place < 3 for place, number in enumerate(order.used.tolist()))
    assert order.used.tolist() != order.read.tolist()


def test_batches_hold_the_pixels_of_their_images(split: PreparedSplit) -> None:
    preprocessing = Preprocessing(image_size=6, resize_size=8)
    for buffer in (2, 99):
        order = epoch(split, buffer=buffer)
        batches = list(pixel_batches(split, order, preprocessing, num_decode_threads=2))
        assert [numbers.tolist() for numbers, _ in batches] == [numbers.tolist() for numbers in order.batches()]
        for numbers, pixels in batches:
            for number, found in zip(numbers.tolist(), pixels, strict=True):
                assert np.array_equal(found, preprocessing.pixels(picture(number)))


def test_an_epoch_can_begin_at_any_step(split: PreparedSplit) -> None:
    preprocessing, order = Preprocessing(6, resize_size=6), epoch(split, buffer=3)
    whole = [pixels for _, pixels in pixel_batches(split, order, preprocessing, num_decode_threads=1)]
    for first in range(order.steps + 1):
        rest = [
            pixels for _, pixels in pixel_batches(split, order, preprocessing, num_decode_threads=1, first_step=first)
        ]
        assert len(rest) == order.steps - first
        assert all(np.array_equal(one, other) for one, other in zip(rest, whole[first:], strict=True))


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    cut = [("k1.png", encoded(picture(1), "PNG")[:-80]), members(1)[1]]
    shard(tmp_path, "a.tar", tar_bytes([*members(0), *cut]))
    split = read_split(tmp_path, "train")
    batches = pixel_batches(
        split, in_order(split, worker_share(split, 0, 1), 1), Preprocessing(6, resize_size=6), num_decode_threads=1
    )
    next(batches)
    with pytest.raises(InputError, match=r"a\.tar: k1 cannot be used"):
        next(batches)


def test_a_shard_that_was_changed_is_named(tmp_path: Path) -> None:
    shard(tmp_path, "a.tar", tar_bytes(members(0, 1)))
    split = read_split(tmp_path, "train")
    shard(tmp_path, "a.tar", tar_bytes(members(0)))
    order = in_order(split, worker_share(split, 0, 1), 1)
    with pytest.raises(InputError, match=r"a\.tar is damaged, or was changed"):
        list(pixel_batches(split, order, Preprocessing(6, resize_size=6), num_decode_threads=1))


@pytest.mark.parametrize("words", [[], ["a", "a"], None])
def test_a_vocabulary_has_words(words: list[str] | None, tmp_path: Path) -> None:
    (tmp_path / "vocabulary.json").write_text(json.dumps({"words": words}))
    with pytest.raises(InputError, match=r"vocabulary\.json"):
        read_vocabulary(tmp_path)
