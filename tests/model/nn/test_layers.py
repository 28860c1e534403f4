"""A CNN described by its layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from model.captioner import checkpoint
from model.errors import OptionError
from model.nn.captioning_network import Architecture
from model.nn.layers import sequential
from model.vision.preprocessing import Preprocessing
from model.vocabulary import Vocabulary

CONVOLUTION = {
    "kind": "convolution",
    "inputs": 3,
    "outputs": 4,
    "kernel": [3, 5],
    "stride": [2, 1],
    "padding": [1, 0],
}
POOL = {"kind": "max_pool", "kernel": [3, 2], "stride": [2, 2], "padding": [1, 0], "ceil": True}
FLATTEN = {"kind": "flatten", "outputs": 4 * 4 * 4}
LINEAR = {"kind": "linear", "inputs": 64, "outputs": 7, "bias": False}
LAYERS = [CONVOLUTION, {"kind": "relu"}, POOL, FLATTEN, LINEAR, {"kind": "dropout", "probability": 0.5}]


def test_layers_become_modules() -> None:
    network, size = sequential(LAYERS)
    assert size == 7
    assert network.eval()(torch.zeros(2, 3, 12, 11)).shape == (2, 7)
    assert network[0].weight.shape == (4, 3, 3, 5)
    assert network[4].bias is None


def test_features_may_be_what_was_flattened() -> None:
    assert sequential(LAYERS[:4])[1] == 64


def test_a_captioner_of_layers_is_loaded_as_it_was(tmp_path: Path) -> None:
    architecture = Architecture(vocabulary_size=3, cnn=LAYERS, embedding_size=5, hidden_size=6, max_tokens=9)
    network = architecture.build().eval()
    preprocessing = Preprocessing(image_size=11, resize_size=16, resampling="torch", crop_offset=2, loading="torch")
    checkpoint.save(
        tmp_path,
        network,
        architecture=architecture,
        vocabulary=Vocabulary(("a", "b")),
        preprocessing=preprocessing,
        provenance={},
        scores={},
    )
    loaded, _, pixels = checkpoint.load(tmp_path)
    images = torch.randn(2, 3, 12, 11)
    with torch.inference_mode():
        assert torch.equal(loaded.encoder(images.clone()), network.encoder(images))
    assert loaded.decoder.max_tokens == 9
    assert pixels == Preprocessing(**{**vars(preprocessing), "mean": list(pixels.mean), "std": list(pixels.std)})


def test_a_captioner_from_before_there_were_layers_is_loaded(captioner: Path, tmp_path: Path) -> None:
    for name in checkpoint.FILES:
        (tmp_path / name).write_bytes((captioner / name).read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    del config["architecture"]["max_tokens"]
    for name in ("resampling", "crop_offset", "loading"):
        del config["preprocessing"][name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    network, _, preprocessing = checkpoint.load(tmp_path)
    assert network.decoder.max_tokens == 0
    assert preprocessing == checkpoint.load(captioner)[2]


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ([*LAYERS, {"kind": "attention"}], "layer 6 of the CNN is {'kind': 'attention'}"),
        ([*LAYERS, {}], "its kind must be one of convolution"),
        (["relu", *LAYERS], "layer 0 of the CNN is 'relu'"),
        ([{**CONVOLUTION, "kernel": 3}, *LAYERS[1:]], "layer 0 of the CNN"),
        ([{**CONVOLUTION, "kernel": [3, 3, 3]}, *LAYERS[1:]], "cannot be built"),
        ([{**CONVOLUTION, "groups": 2}, *LAYERS[1:]], "cannot be built"),
        ([{**CONVOLUTION, "dilation": 2}, *LAYERS[1:]], "cannot be built"),
        ([{**LINEAR, "inputs": -1}], "cannot be built"),
        ([{**LINEAR, "inputs": "many"}], "cannot be built"),
        (LAYERS[:3], "needs a flatten or linear layer"),
        ([], "needs a flatten or linear layer"),
        (7, "cnn is 7"),
        (None, "cnn is None"),
    ],
)
def test_layers_that_cannot_be_built_are_refused(layers: Any, reason: str) -> None:
    with pytest.raises(OptionError) as raised:
        Architecture(vocabulary_size=3, cnn=layers, embedding_size=5, hidden_size=6).build()
    assert reason in str(raised.value)
