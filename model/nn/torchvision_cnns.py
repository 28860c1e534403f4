"""torchvision's classification networks without their last layer, and weights for them.

Letters: B batch, H height, W width, F features.
"""

from __future__ import annotations

from collections import OrderedDict
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

_AFTER_FEATURE_MAP = ("avgpool", "classifier", "fc")
"""Child modules of the classifiers that follow the final feature map."""
_WITHOUT_FEATURE_MAP = ("vit_", "maxvit_")


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
