"""The CNN encoder: any torchvision classifier without its last layer, or a list of layers, and a projection.

Letters: B batch, H height, W width, F features, E embedding, P regions (cells of the CNN's final feature map).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from copy import deepcopy
from itertools import takewhile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from model.errors import CheckpointError, OptionError
from model.nn.layers import Layer, sequential

SMALLEST_STD = 1e-3
_AFTER_FEATURE_MAP = ("avgpool", "classifier", "fc")
"""Child modules of torchvision's classifiers that follow the final feature map."""
_WITHOUT_FEATURE_MAP = ("vit_", "maxvit_")


class Encoder(nn.Module):
    """Maps images to embeddings: standardised CNN features, projected; the pooled ones are rectified, regions are not.

    The features of all images have much in common; unless their mean is subtracted, the decoder learns to model
    language long before it uses the image. A new encoder has mean 0 and standard deviation 1 until `standardize` is
    called.

    Args:
        cnn: name of a torchvision classification network, such as "vgg16" or "mobilenet_v2", or a list of layers
            (`model.nn.layers`).
        embedding_size: E.
        spatial: whether to keep the features of each region, beside the pooled ones.

    Raises OptionError for an unknown CNN, or one without a feature map where `spatial` asks for it.
    """

    feature_mean: torch.Tensor
    feature_std: torch.Tensor
    place_std: torch.Tensor

    def __init__(self, cnn: str | Sequence[Layer], embedding_size: int, *, spatial: bool = False) -> None:
        super().__init__()
        if isinstance(cnn, str):
            build = build_spatial_feature_extractor if spatial else build_feature_extractor
            self.cnn, self.feature_size = build(cnn)
        elif spatial:
            raise OptionError("attention_heads needs a CNN of torchvision's, not one of layers")
        else:
            self.cnn, self.feature_size = sequential(cnn)
        self.register_buffer("feature_mean", torch.zeros(self.feature_size))
        self.register_buffer("feature_std", torch.ones(self.feature_size))
        self.projection = nn.Linear(self.feature_size, embedding_size)
        # Regions are called `places` here since the names of parameters are part of stored captioners.
        self.places = nn.Linear(self.feature_size, embedding_size) if spatial else None
        if spatial:
            self.register_buffer("place_std", torch.ones(self.feature_size))

    @property
    def spatial(self) -> bool:
        """True if the features of each region are kept."""
        return self.places is not None

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Maps normalised images (B, 3, H, W) to pooled features (B, F), or to those of regions (B, P, F)."""
        return self.arrange(self.cnn(images))

    def arrange(self, features: torch.Tensor) -> torch.Tensor:
        """Returns the CNN's output as `features` does: pooled (B, F) as it is, a map (B, F, H, W) as (B, P, F)."""
        return features.flatten(2).transpose(1, 2) if self.spatial else features

    def check_image_size(self, image_size: int) -> None:
        """Raises OptionError if the CNN cannot process square images with this side in pixels."""
        cnn = deepcopy(self.cnn).to("meta").eval()  # shapes without arithmetic
        try:
            cnn(torch.zeros(1, 3, image_size, image_size, device="meta"))
        except (RuntimeError, AssertionError) as error:
            raise OptionError(f"the CNN cannot process images of {image_size}×{image_size} pixels: {error}") from error

    def standardize(self, features: torch.Tensor) -> None:
        """Sets the mean and standard deviation of each feature to those of a sample of images.

        Args:
            features: (B, F) or (B, P, F), from `features`.
        """
        pooled = features
        if self.spatial:  # the features of regions vary more than their means
            pooled = features.mean(dim=1)
            self.place_std.copy_(features.flatten(0, 1).std(dim=0).clamp(min=SMALLEST_STD))
        self.feature_mean.copy_(pooled.mean(dim=0))
        self.feature_std.copy_(pooled.std(dim=0).clamp(min=SMALLEST_STD))

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """Maps features (B, F) to embeddings (B, E), or (B, P, F) to (B, 1 + P, E): pooled, then regions."""
        pooled = features.mean(dim=1) if self.spatial else features
        embedding = torch.relu(self.projection((pooled - self.feature_mean) / self.feature_std))
        if self.places is None:
            return embedding
        regions = self.places((features - self.feature_mean) / self.place_std)
        return torch.cat([embedding.unsqueeze(1), regions], dim=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps normalised images (B, 3, H, W) to embeddings, as `project` does."""
        return self.project(self.features(images))


def build_feature_extractor(name: str) -> tuple[nn.Module, int]:
    """Builds a torchvision classifier without its last layer, with random weights; also returns its feature size F.

    Raises OptionError if torchvision has no classifier of this name.
    """
    cnn = _classifier(name)
    if name.startswith("squeezenet"):  # its last layer is a convolution before the pooling
        size = cnn.classifier[1].in_channels
        cnn.classifier = nn.AdaptiveAvgPool2d(1)
        return cnn, size
    path, last = [(path, layer) for path, layer in cnn.named_modules() if isinstance(layer, nn.Linear)][-1]
    cnn.set_submodule(path, nn.Identity())
    return cnn, last.in_features


def build_spatial_feature_extractor(name: str) -> tuple[nn.Module, int]:
    """Builds a torchvision classifier up to its final feature map, with random weights; also returns the map's depth F.

    Raises OptionError if torchvision has no classifier of this name, or it has no feature map.
    """
    if name.startswith(_WITHOUT_FEATURE_MAP):
        raise OptionError(f"attention_heads needs a CNN with a feature map, such as resnet50; {name} has none")
    children = _classifier(name).named_children()  # weights keep their names in the whole classifier
    cnn = nn.Sequential(OrderedDict(takewhile(lambda child: child[0] not in _AFTER_FEATURE_MAP, children)))
    output = deepcopy(cnn).to("meta").eval()(torch.zeros(1, 3, 299, 299, device="meta"))  # shapes without arithmetic
    return cnn, output.shape[1]


def _classifier(name: str) -> Any:
    choices = torchvision.models.list_models(module=torchvision.models)
    if name not in choices:
        raise OptionError(f"there is no CNN {name!r}; torchvision has {', '.join(choices)}")
    # These two return a tuple of logits in training unless told not to.
    options: dict[str, Any] = (
        {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    )
    return torchvision.models.get_model(name, weights=None, **options)


def load_cnn(cnn: nn.Module, name: str, source: str) -> None:
    """Loads pretrained weights into the feature extractor built from torchvision's classifier `name`.

    Args:
        source: a `.safetensors` file, a PyTorch state dict (read with `weights_only`, so no pickle is executed), or the
            name of torchvision weights to download, such as "DEFAULT" or "IMAGENET1K_V1".

    Raises CheckpointError for weights that are missing, damaged or of another network.
    """
    weights = _read(Path(source)) if Path(source).suffix else _download(name, source)
    try:
        missing, _ = cnn.load_state_dict(weights, strict=False)  # the weights of the removed layers are left over
    except RuntimeError as error:
        raise CheckpointError(f"{source} is of another network than {name}: {error}") from error
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing:
        raise CheckpointError(f"{source} lacks {len(missing)} weights of {name}, such as {missing[0]}")


def _read(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise CheckpointError(f"there is no weight file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, SafetensorError, UnpicklingError) as error:
        raise CheckpointError(f"{path} cannot be read as weights: {error}") from error
    nested = weights.get("state_dict", weights) if isinstance(weights, dict) else weights
    if not isinstance(nested, dict) or not all(isinstance(name, str) for name in nested):
        raise CheckpointError(f"{path} holds a {type(nested).__name__}, not a state dict of names and tensors")
    return nested


def _download(name: str, source: str) -> dict[str, torch.Tensor]:
    published = torchvision.models.get_model_weights(name)
    if source not in published.__members__:
        choices = ", ".join(published.__members__)
        raise CheckpointError(f"{name} has no weights {source!r}; give a file, or one of {choices}")
    try:
        state: dict[str, torch.Tensor] = published[source].get_state_dict(progress=True, check_hash=True)
    except OSError as error:
        raise CheckpointError(f"cannot download {source} of {name}: {error}; give a file instead") from error
    return state
