"""Frozen networks compute what those that they are made of do."""

from dataclasses import replace

import pytest
import torch

from model.device import autocast, can_compute_in
from model.nn.decoder import Decoder
from model.nn.encoder import Encoder
from model.nn.frozen_cnn import IMAGES_AT_ONCE, FrozenFeatures
from model.nn.frozen_decoder import FrozenDecoder, frozen_decoder
from model.vocabulary import END

B, N, P, E, H, V = 3, 7, 4, 8, 6, 11


def normalized(encoder: Encoder) -> Encoder:
    """Sets statistics of batch normalisation as after training, so that it matters which ones are used."""
    torch.manual_seed(0)
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    return encoder


@pytest.mark.parametrize(
    ("cnn", "spatial"), [("mobilenet_v2", True), ("resnet18", False), ("shufflenet_v2_x0_5", False)]
)
def test_features_are_those_of_the_cnn_whatever_the_batch(cnn: str, spatial: bool) -> None:
    encoder = normalized(Encoder(cnn, E, spatial=spatial))
    images = torch.randn(2 * IMAGES_AT_ONCE + 1, 3, 64, 64)
    features = FrozenFeatures(encoder, dtype=torch.float32)
    with torch.inference_mode():
        expected, found = encoder.eval().features(images), features(images)
        assert found.shape == expected.shape
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
        assert torch.equal(features(images[-2:]), found[-2:])


def test_features_are_of_evaluation_also_where_nothing_is_frozen() -> None:
    encoder = Encoder("resnet18", E).double()
    features, images = FrozenFeatures(encoder, dtype=torch.float32), torch.randn(2, 3, 32, 32).double()
    encoder.train()
    with torch.no_grad():
        assert torch.equal(features(images), encoder.eval().features(images))


@pytest.mark.parametrize(("layers", "heads"), [(1, 0), (2, 0), (3, 2)])
def test_steps_are_those_of_the_decoder(layers: int, heads: int) -> None:
    torch.manual_seed(0)
    decoder = Decoder(V, E, H, layers=layers, attention_heads=heads).eval().requires_grad_(False)
    frozen = frozen_decoder(decoder, dtype=torch.float32)
    assert isinstance(frozen, FrozenDecoder) and frozen.vocabulary_size == V
    expected = found = decoder.initial_state(torch.randn(B, *((1 + P, E) if heads else (E,))))
    captions = torch.tensor([0, 0, 1, 1, 1, 2, 2])
    expected, found, words = expected.select(captions), found.select(captions), torch.full((N,), END)
    for _ in range(4):
        log_probs, expected = decoder.step(words, expected)
        same, found = frozen.step(words, found)
        assert torch.allclose(same, log_probs, atol=1e-5)
        words = torch.randint(V, (N,))
    for mine, theirs in zip(found.recurrent, expected.recurrent, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_16_bits_steps_are_about_those_of_the_decoder(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    decoder = Decoder(V, E, H, layers=2, attention_heads=2).eval().requires_grad_(False)
    expected = decoder.initial_state(torch.randn(B, 1 + P, E))
    found = replace(expected, memory=tuple(part.to(dtype) for part in expected.memory))
    frozen, words = frozen_decoder(decoder, dtype=dtype), torch.full((B,), END)
    for _ in range(4):
        log_probs, expected = decoder.step(words, expected)
        near, found = frozen.step(words, found)
        assert near.dtype == torch.float32
        assert 0 < float((near - log_probs).abs().max()) < 0.05
        words = torch.randint(V, (B,))


def test_a_decoder_with_other_weights_than_float32_stays_itself() -> None:
    decoder = Decoder(V, E, H).eval().double()
    assert frozen_decoder(decoder, dtype=torch.float32) is decoder


@pytest.mark.parametrize("cnn", ["mobilenet_v2", "resnet18"])
def test_in_16_bits_features_are_about_those_of_the_cnn(cnn: str) -> None:
    if not can_compute_in(torch.bfloat16, torch.device("cpu")):
        pytest.skip("this CPU has no instructions for bfloat16")
    encoder, images = normalized(Encoder(cnn, E)), torch.randn(B, 3, 64, 64)
    features = FrozenFeatures(encoder, dtype=torch.bfloat16)
    with torch.inference_mode(), autocast(torch.device("cpu"), torch.bfloat16):
        found = features(images).float()
    with torch.inference_mode():
        expected = encoder.eval().features(images)
    assert 0 < float((found - expected).norm() / expected.norm()) < 0.05
