"""The CNN: a list of layers or any torchvision classifier, cut before its last, and a projection to the embedding size.

Letters: B batch, H height, W width, F features, E embedding, P places of the CNN's last map of features.
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
AFTER_THE_MAP = ("avgpool", "classifier", "fc")
"""Children of torchvision's classifiers that come after their last map of features."""
WITHOUT_A_MAP = ("vit_", "maxvit_")


class Encoder(nn.Module):
    """Images to embeddings: pooled penultimate features, each standardised, then linear and ReLU; of places, linear.

    Features of all images have much in common; unless their mean is taken away, the decoder learns the language long
    before it looks at the image. A new encoder has mean 0 and deviation 1, until `standardize` is told better.

    Args:
        cnn: name of a torchvision classification network, such as "vgg16" or "mobilenet_v2", or the layers of another.
        embedding_size: E.
        places: whether to keep the features of each place, beside the pooled ones.

    Raises OptionError for a CNN that there is not, or that has no places.
    """

    feature_mean: torch.Tensor
    feature_std: torch.Tensor
    place_std: torch.Tensor

    def __init__(self, cnn: str | Sequence[Layer], embedding_size: int, *, places: bool = False) -> None:
        super().__init__()
        if isinstance(cnn, str):
            self.cnn, self.feature_size = poolless(cnn) if places else headless(cnn)
        elif places:
            raise OptionError("attention_heads needs a CNN of torchvision's, not one of layers")
        else:
            self.cnn, self.feature_size = sequential(cnn)
        self.register_buffer("feature_mean", torch.zeros(self.feature_size))
        self.register_buffer("feature_std", torch.ones(self.feature_size))
        self.projection = nn.Linear(self.feature_size, embedding_size)
        self.places = nn.Linear(self.feature_size, embedding_size) if places else None
        if places:
            self.register_buffer("place_std", torch.ones(self.feature_size))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) → (B, F), or (B, P, F) with places."""
        features: torch.Tensor = self.cnn(images)
        return features.flatten(2).transpose(1, 2) if self.places else features

    def refuse_unless_sees(self, image_size: int) -> None:
        """Raises OptionError if images of this side, in pixels, are none for the CNN."""
        cnn = deepcopy(self.cnn).to("meta").eval()  # shapes without arithmetic
        try:
            cnn(torch.zeros(1, 3, image_size, image_size, device="meta"))
        except (RuntimeError, AssertionError) as error:
            raise OptionError(f"the CNN cannot see images of {image_size}×{image_size} pixels: {error}") from error

    def standardize(self, features: torch.Tensor) -> None:
        """Takes mean and deviation of each feature from those of many images, as `features` gives them."""
        pooled = features
        if self.places:  # whose features deviate more than their means
            pooled = features.mean(dim=1)
            self.place_std.copy_(features.flatten(0, 1).std(dim=0).clamp(min=SMALLEST_STD))
        self.feature_mean.copy_(pooled.mean(dim=0))
        self.feature_std.copy_(pooled.std(dim=0).clamp(min=SMALLEST_STD))

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """(B, F) → (B, E), or (B, P, F) → (B, 1 + P, E): the whole, then its places."""
        pooled = features.mean(dim=1) if self.places else features
        whole = torch.relu(self.projection((pooled - self.feature_mean) / self.feature_std))
        if self.places is None:
            return whole
        places = self.places((features - self.feature_mean) / self.place_std)
        return torch.cat([whole.unsqueeze(1), places], dim=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) → as `project`."""
        return self.project(self.features(images))


def headless(name: str) -> tuple[nn.Module, int]:
    """The torchvision classifier `name` without its last layer, with random weights, and its feature size F.

    Raises OptionError for a name that torchvision does not know as a classifier.
    """
    cnn = _classifier(name)
    if name.startswith("squeezenet"):  # its last layer is a convolution before the pooling
        size = cnn.classifier[1].in_channels
        cnn.classifier = nn.AdaptiveAvgPool2d(1)
        return cnn, size
    path, last = [(path, layer) for path, layer in cnn.named_modules() if isinstance(layer, nn.Linear)][-1]
    cnn.set_submodule(path, nn.Identity())
    return cnn, last.in_features


def poolless(name: str) -> tuple[nn.Module, int]:
    """The torchvision classifier `name` up to its last map of features, with random weights, and the map's depth F.

    Raises OptionError for a name that torchvision does not know as a classifier, or that has no such map.
    """
    if name.startswith(WITHOUT_A_MAP):
        raise OptionError(f"attention_heads needs a CNN with a map of features, such as resnet50; {name} has none")
    children = _classifier(name).named_children()  # keeping what weights are called in the whole
    cnn = nn.Sequential(OrderedDict(takewhile(lambda child: child[0] not in AFTER_THE_MAP, children)))
    seen = deepcopy(cnn).to("meta").eval()(torch.zeros(1, 3, 299, 299, device="meta"))  # shapes without arithmetic
    return cnn, seen.shape[1]


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
    """Fills the headless CNN of torchvision's `name`.

    Args:
        source: a `.safetensors` file, a state dict (read with `weights_only`: no pickle is executed), or the name of
            torchvision's weights, such as "DEFAULT" or "IMAGENET1K_V1", which are downloaded.

    Raises CheckpointError for weights that are missing, damaged or of another network.
    """
    weights = _read(Path(source)) if Path(source).suffix else _download(name, source)
    try:
        missing, _ = cnn.load_state_dict(weights, strict=False)  # the classifier's head is left over, and not wanted
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
