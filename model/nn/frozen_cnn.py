"""A CNN that is not trained any more: the same features, up to rounding, in less time on a CPU.

Letters: B images, H height, W width, F features, P regions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils import fuse_conv_bn_eval

from model.nn.encoder import Encoder

IMAGES_AT_ONCE = 4
"""Images that pass through the CNN together: their activations fit in a processor's cache, those of 32 do not."""


def is_frozen_faster(weight: torch.Tensor, dtype: torch.dtype) -> bool:
    """Returns whether frozen networks are another computation: on a CPU in float32, of weights in float32."""
    return weight.device.type == "cpu" and weight.dtype == dtype == torch.float32


def frozen_features(encoder: Encoder, *, dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    """Returns a function that computes `Encoder.features` in evaluation mode, for any number of images.

    On a CPU in float32, batch normalisation becomes part of the convolutions, and oneDNN computes activations as their
    last step. Elsewhere it is `Encoder.features` itself.

    Args:
        encoder: put into evaluation mode; later changes of its CNN's weights may have no effect.
        dtype: precision in which the features will be computed.
    """
    if not is_frozen_faster(encoder.projection.weight, dtype):
        return lambda images: encoder.eval().features(images)
    cnn = freeze_cnn(encoder.eval().cnn)

    def features(images: torch.Tensor) -> torch.Tensor:
        starts = range(0, len(images), IMAGES_AT_ONCE)
        return encoder.arrange(torch.cat([cnn(images[start : start + IMAGES_AT_ONCE]) for start in starts]))

    return features


def freeze_cnn(cnn: nn.Module) -> nn.Module:
    """Returns a copy of a CNN in evaluation mode whose convolutions include what follows them.

    A CNN whose graph `torch.fx` cannot trace is returned as it is.
    """
    try:
        graph = fx.symbolic_trace(cnn)
    except (fx.proxy.TraceError, TypeError, AttributeError):
        return cnn
    has_onednn = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    for node in list(graph.graph.nodes):
        if not isinstance(conv := _module(graph, node), nn.Conv2d):
            continue
        if isinstance(normalization := _follower(graph, node), nn.BatchNorm2d):
            conv = fuse_conv_bn_eval(conv, normalization)
            graph.set_submodule(str(node.target), conv)
            _drop_follower(graph, node)
        if has_onednn and conv.padding_mode == "zeros" and not isinstance(conv.padding, str):
            activation = _follower(graph, node)
            graph.set_submodule(str(node.target), _ActivatedConv(conv, activation))
            if type(activation) in _ACTIVATIONS:
                _drop_follower(graph, node)
    graph.recompile()
    return graph


_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
}
"""The activations that oneDNN computes as the last step of a convolution, by its names, with their constants."""


class _ActivatedConv(nn.Module):
    """A convolution and the activation that follows it, in one step of oneDNN, as `torch.compile` would have it."""

    def __init__(self, conv: nn.Conv2d, activation: nn.Module | None) -> None:
        super().__init__()
        name, constants = _ACTIVATIONS.get(type(activation), ("none", []))  # type: ignore[arg-type]
        self.weight, self.bias = conv.weight, conv.bias
        shape = [[*values] for values in (conv.padding, conv.stride, conv.dilation)]
        self._arguments = (*shape, conv.groups, name, constants, "")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(images, self.weight, self.bias, *self._arguments)
        return output


def _module(graph: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """Returns the module that a node of the graph calls, if it is one, and only this node calls it."""
    calls: list[Any] = [
        other for other in graph.graph.nodes if other.op == "call_module" and other.target == node.target
    ]
    return graph.get_submodule(str(node.target)) if calls == [node] else None


def _follower(graph: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """Returns the module that alone uses the output of a node."""
    users = list(node.users)
    return _module(graph, users[0]) if len(users) == 1 else None


def _drop_follower(graph: fx.GraphModule, node: fx.Node) -> None:
    (follower,) = node.users
    follower.replace_all_uses_with(node)
    graph.graph.erase_node(follower)
