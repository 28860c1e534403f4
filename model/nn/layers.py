"""CNNs described by a list of layers, for networks that torchvision does not have.

A layer is a mapping of plain values, which a captioner's config.json can hold:

{"kind": "convolution", "inputs": 3, "outputs": 64, "kernel": [3, 3], "stride": [1, 1], "padding": [1, 1]}
    optional: "groups": 1, "bias": true
{"kind": "max_pool", "kernel": [2, 2], "stride": [2, 2], "padding": [0, 0], "ceil": true}
{"kind": "relu"}
{"kind": "dropout", "probability": 0.5}
{"kind": "flatten", "outputs": 25088}
{"kind": "linear", "inputs": 25088, "outputs": 4096}
    optional: "bias": true

Sides are height, then width, in pixels. With "ceil", a window that starts inside the image counts even if it extends
beyond it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from model.errors import OptionError

Layer = Mapping[str, Any]


def sequential(layers: Sequence[Layer]) -> tuple[nn.Sequential, int]:
    """Builds the network with random weights; also returns its feature size, the outputs of the last flat layer.

    Raises OptionError for an unknown or malformed layer.
    """
    if not isinstance(layers, Sequence):
        raise OptionError(f"cnn is {layers!r}; give a name or a list of layers")
    built = nn.Sequential(*(_build(number, layer) for number, layer in enumerate(layers)))
    sizes = [layer["outputs"] for layer in layers if layer["kind"] in ("flatten", "linear")]
    if not sizes:
        raise OptionError("a CNN of layers needs a flatten or linear layer, for features have no height and width")
    return built, int(sizes[-1])


def _build(number: int, layer: Layer) -> nn.Module:
    if not isinstance(layer, Mapping) or layer.get("kind") not in _BUILDERS:
        raise OptionError(f"layer {number} of the CNN is {layer!r}; its kind must be one of {', '.join(_BUILDERS)}")
    try:
        return _BUILDERS[layer["kind"]](**{name: value for name, value in layer.items() if name != "kind"})
    except (TypeError, ValueError, RuntimeError) as error:
        raise OptionError(f"layer {number} of the CNN, {dict(layer)}, cannot be built: {error}") from error


def _convolution(
    *,
    inputs: int,
    outputs: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    groups: int = 1,
    bias: bool = True,
) -> nn.Module:
    sides = _pair(kernel), _pair(stride), _pair(padding)
    return nn.Conv2d(inputs, outputs, *sides, 1, groups, bias)


def _max_pool(*, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], ceil: bool) -> nn.Module:
    return nn.MaxPool2d(_pair(kernel), _pair(stride), _pair(padding), ceil_mode=ceil)


def _pair(sides: Sequence[int]) -> tuple[int, int]:
    height, width = sides
    return height, width


def _relu() -> nn.Module:
    return nn.ReLU(inplace=True)


def _dropout(*, probability: float) -> nn.Module:
    return nn.Dropout(probability)


def _flatten(*, outputs: int) -> nn.Module:
    return nn.Flatten()


def _linear(*, inputs: int, outputs: int, bias: bool = True) -> nn.Module:
    return nn.Linear(inputs, outputs, bias=bias)


_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "convolution": _convolution,
    "max_pool": _max_pool,
    "relu": _relu,
    "dropout": _dropout,
    "flatten": _flatten,
    "linear": _linear,
}
