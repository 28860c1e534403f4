"""The model on cuda, compared with the CPU. SHARDTALK_TEST_DEVICE=cpu runs these tests on the CPU."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import picture
from devices import near_log_prob
from PIL import Image
from test_train_step import CAPTIONS, batch, per_token, tiny, trainer
from torch7_files import CHECKPOINTS, FIXTURES

from configs.search import Search
from model.captioner import Caption, Captioner, Ensemble, checkpoint
from model.captioner.base import BaseCaptioner
from model.decoding.search import generate_from_state
from model.decoding.sequence_log_probs import token_log_probs
from model.device import autocast, can_compute_in
from model.neuraltalk2 import importer
from model.neuraltalk2.importer import PREPROCESSING
from model.training.self_critical import sample_captions
from model.training.train_step import Batch, Objective
from model.vision.preprocessing import Pixels

pytestmark = pytest.mark.cuda

SHIPPED = "flickr8k-mobilenet-v2"
"""Its decoder attends to the places of the image."""
HALF_MEAN, HALF_LARGEST = 0.1, 0.75
"""Nats by which 16 bits change the log-probability of a token, on average and at most. bfloat16 keeps 8 bits of each of
fifty layers' results: on the CPU it is 0.03 and 0.3."""
SEARCHES = {
    "greedy": Search(method="greedy"),
    "beam": Search(beam_size=5, num_candidates=3),
    "groups": Search(beam_size=4, num_beam_groups=2, num_candidates=2),
    "sample": Search(method="sample", num_candidates=2, top_k=40),
    "rules": Search(no_bad_endings=True, no_immediate_repeat=True, no_repeat_ngram_size=3, min_tokens=3),
    "probabilities": Search(beam_size=2, token_probs=True),
    "neuraltalk2": Search(method="neuraltalk2", beam_size=3, max_tokens=16),
    "neuraltalk2 greedy": Search(method="neuraltalk2", beam_size=1, max_tokens=16),
}


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    photos = [Image.open(FIXTURES / "images" / name) for name in ("img04_photo.jpg", "img16_photo512.jpg")]
    return [*photos, *(picture(seed, 50, 70) for seed in range(5))]


@pytest.fixture(scope="module")
def on_the_cpu() -> BaseCaptioner:
    return loaded(SHIPPED, device="cpu")


def loaded(*names: Path | str, device: torch.device | str, dtype: str = "float32") -> BaseCaptioner:
    if len(names) == 1:
        return Captioner.load(names[0], device=device, dtype=dtype)
    return Ensemble.load(names, weights=[0.7, 0.3], device=device, dtype=dtype)


def assert_same(found: Sequence[Caption], expected: Sequence[Caption]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert [candidate.text for candidate in ours.candidates] == [candidate.text for candidate in theirs.candidates]
        for one, other in zip(ours.candidates, theirs.candidates, strict=True):
            assert one.log_prob == near_log_prob(other.log_prob)
            assert len(one.token_log_probs or ()) == len(other.token_log_probs or ())
            assert sum(one.token_log_probs or [one.log_prob]) == near_log_prob(one.log_prob)


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_captions_in_float32_are_the_cpus(
    search: Search, images: list[Image.Image], on_the_cpu: BaseCaptioner, device: torch.device
) -> None:
    expected = on_the_cpu.caption(images, search)
    assert len({caption.text for caption in expected}) > 2
    assert_same(loaded(SHIPPED, device=device).caption(images, search), expected)


@pytest.mark.parametrize("search", [SEARCHES["beam"], SEARCHES["sample"]], ids=["beam", "sample"])
def test_an_ensembles_captions_in_float32_are_the_cpus(
    search: Search, images: list[Image.Image], captioner: Path, second_captioner: Path, device: torch.device
) -> None:
    expected = loaded(captioner, second_captioner, device="cpu").caption(images, search)
    assert len({caption.text for caption in expected}) > 4
    assert_same(loaded(captioner, second_captioner, device=device).caption(images, search), expected)


def test_a_caption_in_float32_does_not_depend_on_its_batch(images: list[Image.Image], device: torch.device) -> None:
    found = loaded(SHIPPED, device=device)
    assert_same([found.caption([image])[0] for image in images], found.caption(images))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_16_bits_captions_are_about_as_probable(
    dtype: str,
    images: list[Image.Image],
    on_the_cpu: BaseCaptioner,
    device: torch.device,
) -> None:
    if not can_compute_in(getattr(torch, dtype), device):
        pytest.skip(f"this CPU has no instructions for {dtype}")
    full, half = on_the_cpu, loaded(SHIPPED, device=device, dtype=dtype)
    views = {view: np.stack([view.pixels(image) for image in images[:4]]) for view in full.pixel_keys}
    with torch.inference_mode():
        state = full.initial_state(views)
        said = generate_from_state(
            SEARCHES["greedy"], full.decoder, state, suppressed_ids=full.vocabulary.suppressed_ids
        )
        expected = token_log_probs(full.decoder, state, said)
        with autocast(half.device, half.dtype):
            found = token_log_probs(half.decoder, half.initial_state(views), said)
    off = np.abs(np.concatenate([np.subtract(a[0], b[0]) for a, b in zip(found, expected, strict=True)]))
    assert 0.0 < off.mean() < HALF_MEAN
    assert off.max() < HALF_LARGEST


def test_by_default_a_gpu_computes_in_16_bits(images: list[Image.Image], cuda: torch.device) -> None:
    found = Captioner.load(SHIPPED)
    assert (found.device.type, found.dtype.itemsize) == ("cuda", 2)
    words = set(found.vocabulary.words)
    for caption in found.caption(images, SEARCHES["beam"]):
        assert {word for candidate in caption.candidates for word in candidate.text.split()} <= words
        assert all(candidate.log_prob < 0.0 for candidate in caption.candidates)


def test_pixels_in_pinned_memory_may_be_overwritten_once_they_are_captioned(
    images: list[Image.Image], cuda: torch.device
) -> None:
    found = loaded(SHIPPED, device=cuda)
    views = [np.stack([found.pixel_keys[0].pixels(image) for image in some]) for some in (images[:4], images[3:])]
    expected = [found.caption_pixels(pixels) for pixels in views]
    pinned: Pixels = torch.empty(views[0].shape, dtype=torch.uint8, pin_memory=True).numpy()
    for pixels, captions in zip(views, expected, strict=True):
        pinned[:] = pixels
        assert_same(found.caption_pixels(pinned), captions)


def test_neuraltalk2s_captions_are_the_originals(device: torch.device) -> None:
    original = importer.read(CHECKPOINTS / "A.t7")
    found = Captioner(original.network, original.vocabulary, PREPROCESSING, device=device, dtype=torch.float32)
    expected = json.loads((FIXTURES / "eval" / "A.beam2.vis.json").read_text())
    files = [Image.open(FIXTURES / image["file_name"]) for image in expected]
    captions = found.caption(files, Search(method="neuraltalk2", beam_size=2))
    assert [caption.text for caption in captions] == [image["caption"] for image in expected]


def captioned_images(device: torch.device) -> Batch:
    images = torch.randn(3, 3, 8, 9, generator=torch.Generator().manual_seed(1))
    given = batch(CAPTIONS)
    return Batch(given.words.to(device), given.lengths.to(device), images=images.to(device))


@pytest.mark.parametrize("attention_heads", [0, 1])
def test_losses_in_float32_are_the_cpus(attention_heads: int, device: torch.device) -> None:
    losses = []
    for where in (torch.device("cpu"), device):
        learning = trainer(tiny(attention_heads=attention_heads).to(where), cnn_learning_rate=0.01)
        losses.append([per_token(learning.step([captioned_images(where)])) for _ in range(8)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert losses[1][-1] < 0.9 * losses[1][0]


def test_training_in_bfloat16_lowers_the_loss(cuda: torch.device) -> None:
    network = tiny().to(cuda)
    learning = trainer(network, cnn_learning_rate=0.01, objective=Objective(dtype=torch.bfloat16))
    losses = [per_token(learning.step([captioned_images(cuda)])) for _ in range(20)]
    assert losses[-1] < 0.8 * losses[0]
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


def test_the_network_draws_what_it_draws_on_the_cpu(images: list[Image.Image], device: torch.device) -> None:
    drawn = []
    for where in (torch.device("cpu"), device):
        network, vocabulary, preprocessing = checkpoint.load(checkpoint.find(SHIPPED))
        pixels = torch.from_numpy(np.stack([preprocessing.pixels(image) for image in images])).to(where)
        given = {"images": preprocessing.normalize(pixels), "suppressed_ids": vocabulary.suppressed_ids}
        drawn.append(
            sample_captions(
                network.to(where), Search(method="sample", num_candidates=3, no_repeat_ngram_size=0), **given
            )
        )
    assert drawn[0] == drawn[1]
    assert len({tuple(words) for captions in drawn[0] for words in captions}) > len(images)
