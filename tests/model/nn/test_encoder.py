"""The CNN encoder and its pretrained weights."""

import os
import pickle
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from model.errors import CheckpointError, OptionError
from model.nn.encoder import Encoder
from model.nn.torchvision_cnns import build_feature_extractor, load_cnn

NAME = "squeezenet1_1"


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """Returns a state dict as torchvision publishes it, with the classifier's head."""
    torch.manual_seed(5)
    return torchvision.models.get_model(NAME, weights=None).state_dict()


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vgg16", 4096),
        ("alexnet", 4096),
        ("resnet18", 512),
        ("mobilenet_v2", 1280),
        ("mobilenet_v3_small", 1024),
        ("efficientnet_b0", 1280),
        ("densenet121", 1024),
        ("googlenet", 1024),
        ("inception_v3", 2048),
        ("convnext_tiny", 768),
        ("squeezenet1_1", 512),
    ],
)
def test_a_cnn_is_cut_at_its_pooled_features(name: str, size: int) -> None:
    with torch.device("meta"):  # shapes without arithmetic
        cnn, feature_size = build_feature_extractor(name)
        features = cnn.eval()(torch.zeros(3, 3, 299, 299))
    assert feature_size == size
    assert features.shape == (3, size)


def test_features_are_what_the_last_layer_would_have_read() -> None:
    torch.manual_seed(1)
    whole = torchvision.models.get_model("mobilenet_v2", weights=None).eval()
    cnn, _ = build_feature_extractor("mobilenet_v2")
    cnn.load_state_dict(whole.state_dict(), strict=False)
    images = torch.randn(2, 3, 40, 48)
    with torch.no_grad():
        assert torch.allclose(whole.classifier[-1](cnn.eval()(images)), whole(images), atol=1e-6)


def test_an_unknown_cnn_lists_those_there_are() -> None:
    with pytest.raises(OptionError, match=r"lenet.*mobilenet_v2.*vgg16"):
        build_feature_extractor("lenet")


def test_an_embedding_is_the_rectified_projection_of_the_features() -> None:
    torch.manual_seed(2)
    encoder = Encoder(NAME, 5).eval()
    images = torch.randn(3, 3, 40, 48)
    with torch.no_grad():
        features = encoder.features(images)
        embedding = encoder(images)
        expected = (features @ encoder.projection.weight.T + encoder.projection.bias).clamp(min=0)
    assert torch.allclose(embedding, expected, atol=1e-6)
    assert (embedding == 0).any()
    assert (embedding > 0).any()


def test_standardized_features_have_no_mean_and_deviation_one() -> None:
    torch.manual_seed(2)
    encoder = Encoder(NAME, 512).eval()
    nn.init.eye_(encoder.projection.weight)
    nn.init.constant_(encoder.projection.bias, 100.0)  # so that no value is cut off
    features = torch.randn(50, 512) * torch.linspace(0.1, 5, 512) + torch.linspace(-3, 3, 512)
    features[:, 7] = 2.0  # says nothing, and must not become infinite
    encoder.standardize(features)
    with torch.no_grad():
        embedding = encoder.project(features) - 100.0
    assert torch.allclose(embedding.mean(dim=0), torch.zeros(512), atol=1e-4)
    assert torch.allclose(embedding.std(dim=0), torch.ones(512).index_fill(0, torch.tensor([7]), 0.0), atol=1e-3)


def filled(source: Path | str, name: str = NAME) -> nn.Module:
    cnn, _ = build_feature_extractor(name)
    load_cnn(cnn, name, str(source))
    return cnn


def assert_filled(cnn: nn.Module, published: dict[str, torch.Tensor]) -> None:
    for name, value in cnn.state_dict().items():
        assert torch.equal(value, published[name]), name


def test_weights_come_from_safetensors(tmp_path: Path, published: dict[str, torch.Tensor]) -> None:
    save_file(published, tmp_path / "cnn.safetensors")
    assert_filled(filled(tmp_path / "cnn.safetensors"), published)


@pytest.mark.parametrize("nested", [False, True])
def test_weights_come_from_a_state_dict(tmp_path: Path, published: dict[str, torch.Tensor], nested: bool) -> None:
    torch.save({"state_dict": published} if nested else published, tmp_path / "cnn.pt")
    assert_filled(filled(tmp_path / "cnn.pt"), published)


@pytest.mark.parametrize("other", ["squeezenet1_0", "mobilenet_v2"])
def test_weights_of_another_network_are_refused(tmp_path: Path, published: dict[str, torch.Tensor], other: str) -> None:
    torch.save(published, tmp_path / "cnn.pt")
    with pytest.raises(CheckpointError, match=other):
        filled(tmp_path / "cnn.pt", other)


def test_a_missing_weight_is_named(tmp_path: Path, published: dict[str, torch.Tensor]) -> None:
    save_file({k: v for k, v in published.items() if k != "features.0.bias"}, tmp_path / "cnn.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks 1 weights.*features\.0\.bias"):
        filled(tmp_path / "cnn.safetensors")


def test_an_unknown_name_of_weights_lists_the_choices() -> None:
    with pytest.raises(CheckpointError, match=r"NEWEST.*IMAGENET1K_V1"):
        filled("NEWEST")


def test_a_missing_weight_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no weight file .*nothing\.pt"):
        filled(tmp_path / "nothing.pt")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("data", [b"", b"garbage", b"PK\x03\x04" + bytes(99), b"\x80\x02garbage", b"\x80\x02}q\x00."])
def test_a_damaged_weight_file_is_refused(tmp_path: Path, suffix: str, data: bytes) -> None:
    path = (tmp_path / "cnn").with_suffix(suffix)
    path.write_bytes(data)
    with pytest.raises(CheckpointError):
        filled(path)


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(2), {"state_dict": [1]}, {"features.0.bias": "text"}, {1: 2}])
def test_a_file_that_holds_no_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "cnn.pt")
    with pytest.raises(CheckpointError):
        filled(tmp_path / "cnn.pt")


class Trap:
    """Creates a directory when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_pickle_is_not_executed(tmp_path: Path, zipped: bool) -> None:
    path, trap = tmp_path / "cnn.pt", Trap(tmp_path / "trace")
    if zipped:
        torch.save(trap, path)
    else:
        path.write_bytes(pickle.dumps(trap, protocol=2))
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        filled(path)
    assert not (tmp_path / "trace").exists()
