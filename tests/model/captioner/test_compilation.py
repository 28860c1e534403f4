"""A compiled CNN, and when it is compiled."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import picture

from configs.captioning import CompileCnn
from model.captioner import Captioner
from model.captioner.compilation import COMPILE_AFTER_S, Compilation
from model.errors import OptionError
from model.nn.encoder import Encoder
from model.nn.frozen_cnn import FrozenFeatures

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
CNN = [
    {"kind": "convolution", "inputs": 3, "outputs": 4, "kernel": [3, 3], "stride": [2, 2], "padding": [1, 1]},
    {"kind": "relu"},
    {"kind": "flatten", "outputs": 4 * 8 * 8},
]


Compiler = Callable[[Any], None]


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    """Sets the backend of `torch.compile`: the default one takes half a minute."""
    whole = torch.compile
    return lambda backend: monkeypatch.setattr(torch, "compile", partial(whole, backend=backend))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9])
def test_features_do_not_depend_on_padding(count: int, compiler: Compiler) -> None:
    compiler("eager")
    features, images = FrozenFeatures(Encoder(CNN, 5), dtype=torch.float32), torch.randn(9, 3, 16, 16)
    with torch.inference_mode():
        expected = features(images)
        features.compile(images[:4])
        assert torch.allclose(features(images[:count]), expected[:count], atol=1e-6)


def test_a_cnn_that_cannot_be_compiled_is_one_clear_line(compiler: Compiler) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no C compiler\nand more")

    compiler(broken)
    features, images = FrozenFeatures(Encoder(CNN, 5), dtype=torch.float32), torch.randn(4, 3, 16, 16)
    with torch.inference_mode(), pytest.raises(OptionError, match=r"cannot be compiled here: .*no C compiler") as error:
        features.compile(images)
    assert "\n" not in str(error.value)
    with torch.inference_mode():
        assert features(images).shape == (4, 4 * 8 * 8)


@pytest.mark.parametrize(
    ("when", "device", "seconds", "is_due"),
    [
        ("always", CPU, 0.0, True),
        ("never", CUDA, 2 * COMPILE_AFTER_S, False),
        ("auto", CUDA, 0.9 * COMPILE_AFTER_S, False),
        ("auto", CUDA, 1.1 * COMPILE_AFTER_S, True),
        ("auto", CPU, 1.1 * COMPILE_AFTER_S, False),
    ],
)
def test_a_cnn_is_compiled_once_when_it_is_due(
    when: CompileCnn, device: torch.device, seconds: float, is_due: bool
) -> None:
    compilation, compiled = Compilation(when, device), list[int]()
    for _ in range(3):
        compilation.count(seconds / 3)
    for i in range(3):
        compilation.run_when_due(lambda i=i: compiled.append(i))  # type: ignore[misc]
    assert compiled == [0] * is_due


def test_only_a_user_who_asked_for_it_needs_a_compiler(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise OptionError("no compiler")

    with pytest.raises(OptionError):
        Compilation("always", CUDA).run_when_due(fail)
    automatic = Compilation("auto", CUDA)
    automatic.count(COMPILE_AFTER_S)
    with caplog.at_level(logging.WARNING):
        automatic.run_when_due(fail)
        automatic.run_when_due(fail)
    assert caplog.messages == ["no compiler; the CNN runs as it is"]


def test_a_captioner_compiles_its_cnn_for_its_first_batch(captioner: Path, compiler: Compiler) -> None:
    compiled_for = list[torch.Size]()

    def record(graph: Any, inputs: list[torch.Tensor]) -> Any:
        compiled_for.extend(each.shape for each in inputs if each.shape[1:] == (3, 64, 64))
        return graph

    compiler(record)
    images = [picture(seed) for seed in range(5)]
    plain, compiled = Captioner.load(captioner), Captioner.load(captioner, compile_cnn="always")
    expected = plain.caption(images)
    for some in (images, images[:3], images[:1]):
        found = compiled.caption(some)
        assert [caption.text for caption in found] == [caption.text for caption in expected[: len(some)]]
    assert compiled_for == [(5, 3, 64, 64)]
