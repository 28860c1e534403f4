"""MobileNetV2 (Sandler et al., 2018) without importing torchvision, which takes as long as importing PyTorch.

The weights have torchvision's names, and the outputs are torchvision's.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

FEATURES = 1280
"""Number of channels of the final feature map."""
_STAGES = (
    # expansion, channels, blocks, stride of the first block
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2(*, spatial: bool) -> nn.Sequential:
    """Builds MobileNetV2 without its last layer, with random weights.

    Args:
        spatial: whether images (B, 3, H, W) are mapped to the feature map (B, FEATURES, H/32, W/32), or to pooled
            features (B, FEATURES).
    """
    layers = [_convolution(3, 32, kernel_size=3, stride=2)]
    channels = 32
    for expansion, outputs, blocks, stride in _STAGES:
        for block in range(blocks):
            layers.append(_InvertedResidual(channels, outputs, stride=1 if block else stride, expansion=expansion))
            channels = outputs
    layers.append(_convolution(channels, FEATURES, kernel_size=1))
    network = nn.Sequential(OrderedDict(features=nn.Sequential(*layers)))
    if not spatial:
        network.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2)])
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
    return network


class _InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.conv = nn.Sequential(
            *([_convolution(inputs, hidden, kernel_size=1)] if expansion > 1 else []),
            _convolution(hidden, hidden, kernel_size=3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self._adds = stride == 1 and inputs == outputs

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        changed: torch.Tensor = self.conv(images)
        return images + changed if self._adds else changed


def _convolution(inputs: int, outputs: int, *, kernel_size: int, stride: int = 1, groups: int = 1) -> nn.Module:
    padding = kernel_size // 2
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )
