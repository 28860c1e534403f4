"""Frozen networks compute what those that they are made of do."""

import pytest
import torch

from model.nn.decoder import Decoder
from model.nn.encoder import Encoder
from model.nn.frozen_cnn import IMAGES_AT_ONCE, frozen_features
from model.nn.frozen_decoder import FrozenDecoder, frozen_decoder
from model.vocabulary import END

B, N, P, E, H, V = 3, 7, 4, 8, 6, 11


@pytest.mark.parametrize(
    ("cnn", "spatial"), [("mobilenet_v2", True), ("resnet18", False), ("shufflenet_v2_x0_5", False)]
)
def test_features_are_those_of_the_cnn_whatever_the_batch(cnn: str, spatial: bool) -> None:
    torch.manual_seed(0)
    encoder = Encoder(cnn, E, spatial=spatial)
    for module in encoder.modules():  # as after training, so that it matters which statistics are used
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    images = torch.randn(2 * IMAGES_AT_ONCE + 1, 3, 64, 64)
    features = frozen_features(encoder, dtype=torch.float32)
    with torch.inference_mode():
        expected, found = encoder.eval().features(images), features(images)
        assert found.shape == expected.shape
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
        assert torch.equal(features(images[-2:]), found[-2:])


def test_features_are_of_evaluation_also_where_nothing_is_frozen() -> None:
    encoder = Encoder("resnet18", E).double()
    features, images = frozen_features(encoder, dtype=torch.float32), torch.randn(2, 3, 32, 32).double()
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


def test_a_decoder_of_another_precision_stays_itself() -> None:
    decoder = Decoder(V, E, H).eval()
    assert frozen_decoder(decoder.double(), dtype=torch.float32) is decoder
    assert frozen_decoder(decoder.float(), dtype=torch.bfloat16) is decoder
