"""Converts a Torch7 CNN, an `nn.Sequential` as neuraltalk2 builds it, to layers and weights of ours.

It must end in Linear and ReLU, which become the encoder's projection; the layers before them become its CNN. Classes of
`cudnn` are read like those of `nn`. Channels stay RGB.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from model.errors import CheckpointError
from model.neuraltalk2.torch7_values import LuaTable
from model.nn.layers import Layer

CHANNELS = 3


@dataclass
class ConvertedCnn:
    """A converted CNN: its layers, its weights by their names in `nn.Sequential`, and the weights of the projection."""

    layers: list[Layer] = field(default_factory=list)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    projection: dict[str, torch.Tensor] = field(default_factory=dict)


def read_cnn(network: object, *, image_size: int) -> ConvertedCnn:
    """Converts the CNN of a checkpoint.

    Args:
        network: an `nn.Sequential` of convolutions, ReLU, max-pooling, View, Linear and Dropout.
        image_size: side of its square RGB input, in pixels.

    Raises CheckpointError, naming the layer, for unsupported layers and for sizes that do not match.
    """
    if not isinstance(network, LuaTable) or network.class_name != "nn.Sequential":
        raise CheckpointError(f"the CNN is {network!r}, not an nn.Sequential")
    converter = _Converter(image_size)
    modules = list(_flatten(network))
    for number, module in enumerate(modules, start=1):
        converter.check_supported(number, module)
    while modules and _kind(modules[-1]) == "Dropout" and modules[-1].get("v2") is True:
        modules.pop()  # has no effect outside of training
    if [_kind(module) for module in modules[-2:]] != ["Linear", "ReLU"]:
        last_two = " and ".join(module.class_name for module in modules[-2:]) or "nothing"
        raise CheckpointError(f"the CNN ends in {last_two}, not in Linear and ReLU as neuraltalk2's do")
    for number, module in enumerate(modules[:-1], start=1):
        converter.add(number, module)
    cnn = converter.cnn
    last = len(cnn.layers) - 1
    cnn.layers.pop()
    cnn.projection = {name: cnn.weights.pop(f"{last}.{name}") for name in ("weight", "bias")}
    return cnn


def integer(record: LuaTable, name: str, default: int | None = None) -> int:
    """Reads a field that is a non-negative integer. Raises CheckpointError if it is not."""
    value = record.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, float) or not value.is_integer() or value < 0:
        raise CheckpointError(f"{name} of {record.class_name or 'a table'} is {value!r}, not a number of 0, 1, 2, …")
    return int(value)


def tensor(record: LuaTable, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Reads a field that is a tensor of this shape, or can be reshaped to it without moving axis 0; returns float32.

    Raises CheckpointError if it is not.
    """
    value = record.get(name)
    if not isinstance(value, np.ndarray) or value.size != math.prod(shape) or value.shape[:1] != shape[:1]:
        found = f"of shape {value.shape}" if isinstance(value, np.ndarray) else repr(value)
        raise CheckpointError(f"{name} of {record.class_name} is {found}; it should be of shape {shape}")
    reach = sum((side - 1) * step for side, step in zip(value.shape, value.strides, strict=True)) + value.itemsize
    if reach < value.nbytes:  # its elements repeat, so it would need more memory than the file has bytes
        raise CheckpointError(f"{name} of {record.class_name} repeats itself")
    return torch.from_numpy(np.ascontiguousarray(value, np.float32).reshape(shape))


def evaluation_factor(dropout: LuaTable) -> float:
    """Returns the factor that an `nn.Dropout` applies outside of training: 1, unless it is of version 1."""
    probability = dropout.get("p")
    if not isinstance(probability, float) or not 0 <= probability < 1:
        raise CheckpointError(f"p of {dropout.class_name} is {probability!r}")
    return 1.0 if dropout.get("v2") is True else 1.0 - probability


class _Converter:
    """Converts layer by layer and tracks the shape of the output."""

    def __init__(self, image_size: int) -> None:
        self.cnn = ConvertedCnn()
        self._shape: tuple[int, ...] = (CHANNELS, image_size, image_size)
        self._factor = 1.0  # factor of the output so far, to be folded into the next weights
        self._converters: dict[str, Callable[[LuaTable], Layer]] = {
            "SpatialConvolution": self._convolution,
            "SpatialConvolutionMM": self._convolution,
            "SpatialMaxPooling": self._max_pool,
            "ReLU": self._relu,
            "View": self._view,
            "Reshape": self._view,
            "Linear": self._linear,
            "Dropout": self._dropout,
        }

    def check_supported(self, number: int, module: LuaTable) -> None:
        """Raises CheckpointError for a layer of an unsupported class."""
        if _kind(module) not in self._converters:
            raise CheckpointError(f"{_name(number, module)}, is none of {', '.join(self._converters)}")

    def add(self, number: int, module: LuaTable) -> None:
        """Converts the next layer. Raises CheckpointError for one that cannot be converted."""
        try:
            layer = self._converters[_kind(module)](module)
        except CheckpointError as error:
            raise CheckpointError(f"{_name(number, module)}: {error}") from error
        self.cnn.layers.append(layer)

    def _convolution(self, module: LuaTable) -> Layer:
        inputs, outputs, groups = integer(module, "nInputPlane"), integer(module, "nOutputPlane"), _groups(module)
        kernel, stride, padding = _window(module)
        self._expect(inputs, "channels")
        self._weights(module, (outputs, inputs // groups, *kernel))
        self._slide(outputs, kernel, stride, padding, ceil=False)
        return {
            "kind": "convolution",
            "inputs": inputs,
            "outputs": outputs,
            "kernel": kernel,
            "stride": stride,
            "padding": padding,
            "groups": groups,
        }

    def _max_pool(self, module: LuaTable) -> Layer:
        kernel, stride, padding = _window(module)
        ceil = module.get("ceil_mode") is True
        self._slide(self._shape[0], kernel, stride, padding, ceil=ceil)
        return {"kind": "max_pool", "kernel": kernel, "stride": stride, "padding": padding, "ceil": ceil}

    def _relu(self, module: LuaTable) -> Layer:
        if module.get("threshold") not in (None, 0.0) or module.get("val") not in (None, 0.0):
            raise CheckpointError("its threshold is not 0")
        return {"kind": "relu"}

    def _view(self, module: LuaTable) -> Layer:
        outputs = math.prod(self._shape)
        size = module.get("size")
        sides = [int(side) for side in size] if isinstance(size, np.ndarray) and size.ndim == 1 else []
        if sides[-1:] not in ([-1], [outputs]) or any(side != -1 for side in sides[:-1]):
            raise CheckpointError(f"it reshapes {self._shape} to {sides or size!r}; only vectors are supported")
        self._shape = (outputs,)
        return {"kind": "flatten", "outputs": outputs}

    def _linear(self, module: LuaTable) -> Layer:
        weight = module.get("weight")
        if not isinstance(weight, np.ndarray) or weight.ndim != 2:  # noqa: PLR2004
            raise CheckpointError("its weight is no matrix")
        outputs, inputs = weight.shape
        if len(self._shape) != 1:
            raise CheckpointError(f"it reads vectors, and gets {self._shape}")
        self._expect(inputs, "values")
        self._weights(module, (outputs, inputs))
        self._shape = (outputs,)
        return {"kind": "linear", "inputs": inputs, "outputs": outputs}

    def _dropout(self, module: LuaTable) -> Layer:
        self._factor *= evaluation_factor(module)
        return {"kind": "dropout", "probability": module.get("p")}

    def _expect(self, count: int, what: str) -> None:
        if self._shape[0] != count:
            raise CheckpointError(f"it reads {count} {what}, and gets {self._shape[0]}")

    def _weights(self, module: LuaTable, shape: tuple[int, ...]) -> None:
        weight = tensor(module, "weight", shape)
        if self._factor != 1.0:
            weight, self._factor = weight * self._factor, 1.0
        bias = tensor(module, "bias", shape[:1]) if module.get("bias") is not None else torch.zeros(shape[0])
        number = len(self.cnn.layers)
        self.cnn.weights |= {f"{number}.weight": weight, f"{number}.bias": bias}

    def _slide(self, channels: int, kernel: list[int], stride: list[int], padding: list[int], *, ceil: bool) -> None:
        """Updates the output shape for a sliding window (convolution or pooling)."""
        if len(self._shape) != 1 + len(kernel):
            raise CheckpointError(f"it reads images, and gets {self._shape}")
        sides = []
        for side, width, step, margin in zip(self._shape[1:], kernel, stride, padding, strict=True):
            room = side + 2 * margin - width
            steps = (-(-room // step) if ceil else room // step) if step else -1
            if ceil and steps * step >= side + margin:  # a window must begin inside the image
                steps -= 1
            if min(room, steps) < 0 or width < 1:
                raise CheckpointError(f"a window of {kernel} in steps of {stride} does not fit into {self._shape}")
            sides.append(steps + 1)
        self._shape = (channels, *sides)


def _flatten(network: LuaTable) -> Iterator[LuaTable]:
    """Yields the layers of an `nn.Sequential`, with nested ones flattened."""
    stack, visited = [network], 0
    while stack:
        module = stack.pop()
        visited += 1
        if visited > 10_000:  # noqa: PLR2004 - one that contains itself has no end
            raise CheckpointError("the CNN has more than 10,000 layers")
        if module.class_name == "nn.Sequential":
            inner = module.get("modules")
            layers = inner.sequence() if isinstance(inner, LuaTable) else []
            if odd := [layer for layer in layers if not isinstance(layer, LuaTable)]:
                raise CheckpointError(f"the CNN has {odd[0]!r} in the place of a layer")
            stack += [layer for layer in reversed(layers) if isinstance(layer, LuaTable)]
        elif _kind(module) != "Identity":
            yield module


def _name(number: int, module: LuaTable) -> str:
    name = module.get("name")
    return f"layer {number} of the CNN, {module.class_name}{f' {name!r}' if isinstance(name, str) else ''}"


def _kind(module: LuaTable) -> str:
    package, _, name = module.class_name.partition(".")
    return name if package in ("nn", "cudnn") else module.class_name


def _window(module: LuaTable) -> tuple[list[int], list[int], list[int]]:
    """Reads kernel, stride and padding, each as [height, width]."""
    both = integer(module, "padding", 0)  # the field of the oldest files
    kernel, stride = ([integer(module, f"{what}{side}") for side in "HW"] for what in "kd")
    return kernel, stride, [integer(module, f"pad{side}", both) for side in "HW"]


def _groups(module: LuaTable) -> int:
    groups = integer(module, "groups", 1)
    if groups < 1 or integer(module, "nInputPlane") % groups:
        raise CheckpointError(f"its {integer(module, 'nInputPlane')} channels cannot be in {groups} groups")
    return groups
