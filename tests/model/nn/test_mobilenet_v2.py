"""MobileNetV2 against torchvision's."""

import pytest
import torch
import torchvision

from model.nn.encoder import Encoder
from model.nn.frozen_cnn import freeze_cnn
from model.nn.mobilenet_v2 import FEATURES, mobilenet_v2


@pytest.fixture
def whole() -> torchvision.models.MobileNetV2:
    torch.manual_seed(3)
    network = torchvision.models.get_model("mobilenet_v2", weights=None)
    network.classifier[1] = torch.nn.Identity()
    network(torch.randn(8, 3, 64, 64))  # other statistics than 0 and 1
    return network


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (33, 70)])
def test_features_are_torchvisions(
    training: bool, size: tuple[int, int], whole: torchvision.models.MobileNetV2
) -> None:
    images = torch.randn(2, 3, *size)
    for spatial, network in ((True, whole.features), (False, whole)):
        ours = mobilenet_v2(spatial=spatial)
        ours.load_state_dict(whole.state_dict())  # all names, and no other
        torch.manual_seed(1)
        expected = network.train(training)(images)
        torch.manual_seed(1)  # of the dropout
        assert torch.equal(ours.train(training)(images), expected)
        assert expected.shape[1] == FEATURES


@torch.no_grad()
def test_its_random_weights_have_torchvisions_distribution(whole: torchvision.models.MobileNetV2) -> None:
    for (name, weight), (expected_name, expected) in zip(
        mobilenet_v2(spatial=True).features.named_parameters(), whole.features.named_parameters(), strict=True
    ):
        assert name == expected_name
        if weight.dim() == 4:
            assert float(weight.std()) == pytest.approx(float(expected.std()), rel=0.35)
            assert abs(float(weight.mean())) < float(expected.std()) / 2
        else:
            assert torch.equal(weight, torch.full_like(weight, float(name.endswith("weight"))))


def test_the_encoder_and_its_frozen_form_use_it(whole: torchvision.models.MobileNetV2) -> None:
    encoder = Encoder("mobilenet_v2", 5, spatial=True).eval()
    encoder.cnn.load_state_dict(whole.state_dict())
    images = torch.randn(3, 3, 64, 64)
    expected = whole.eval().features(images)
    with torch.no_grad():
        assert torch.equal(encoder.features(images), expected.flatten(2).transpose(1, 2))
        frozen = freeze_cnn(encoder.cnn, dtype=torch.float32, with_onednn=True)(images)
        assert torch.allclose(frozen, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
        assert torch.equal(encoder.cnn(images), expected)  # freezing leaves it as it was
