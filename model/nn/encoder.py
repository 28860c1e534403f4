"""The CNN encoder: any torchvision classifier without its last layer, or a list of layers, and a projection.

Letters: B batch, H height, W width, F features, E embedding, P regions (cells of the CNN's final feature map).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import nn

from model.errors import OptionError
from model.nn.layers import Layer, sequential
from model.nn.mobilenet_v2 import FEATURES, mobilenet_v2

SMALLEST_STD = 1e-3


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
        if cnn == "mobilenet_v2":
            self.cnn: nn.Module = mobilenet_v2(spatial=spatial)
            self.feature_size = FEATURES
        elif isinstance(cnn, str):
            # Only here, as it takes as long to import as PyTorch.
            from model.nn.torchvision_cnns import build_feature_extractor, build_spatial_feature_extractor

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
