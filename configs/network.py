"""Options of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from configs.errors import ConfigError


@dataclass(frozen=True)
class NetworkShape:
    """The parts of the network and their sizes. `model.nn.captioning_network.Architecture` adds the vocabulary's.

    Raises ConfigError for a value out of range.
    """

    cnn: str | Sequence[Mapping[str, Any]] = "mobilenet_v2"
    """The CNN: the name of a torchvision classifier, such as vgg16, resnet50 or mobilenet_v2, or the layers of another
    CNN (`model.nn.layers`)."""
    embedding_size: int = 512
    """Size of the embeddings of images and words."""
    hidden_size: int = 512
    """Size of the LSTM's hidden state."""
    layers: int = 1
    """Number of LSTM layers."""
    attention_heads: int = 0
    """Number of attention heads over the CNN's final feature map. Must divide embedding_size and hidden_size. 0
    disables attention; pooled features are then cached while the CNN is frozen."""

    def __post_init__(self) -> None:
        for name in ("embedding_size", "hidden_size", "layers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.attention_heads < 0:
            raise ConfigError(f"attention_heads is {self.attention_heads}; it must be at least 0")


@dataclass(frozen=True)
class InitialNetwork(NetworkShape):
    """The network that training begins with."""

    cnn: str = "mobilenet_v2"
    """The CNN: the name of a torchvision classifier, such as vgg16, resnet50 or mobilenet_v2."""
    weights: str = "DEFAULT"
    """The CNN's initial weights: a .safetensors or state-dict file, or the name of torchvision weights, which are
    downloaded. DEFAULT is torchvision's best."""
    image_size: int = 224
    """Side of the square input image, in pixels."""
    standardize: bool = True
    """Standardise the CNN's features: subtract their mean over the training images and divide by their standard
    deviation."""
