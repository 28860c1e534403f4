"""Random crops and flips of a batch of images, on their device."""

from __future__ import annotations

import torch
from torch.nn.functional import affine_grid, grid_sample


def crop_and_flip(images: torch.Tensor, *, min_scale: float, generator: torch.Generator) -> torch.Tensor:
    """Cuts a random window out of each image, scales it back to the full size, and mirrors every other one.

        Args:
            images: (B, 3, H, W) float.
    x of the window, as a share of the image's, in (0, 1]; both sides are drawn apart.
            generator: on the CPU; decides everything.
    """
    count = len(images)
    sides = min_scale + (1.0 - min_scale) * torch.rand(count, 2, generator=generator)
    centres = (2.0 * torch.rand(count, 2, generator=generator) - 1.0) * (1.0 - sides)
    mirrored = torch.rand(count, generator=generator) < 0.5  # noqa: PLR2004
    scales = sides * torch.stack([torch.where(mirrored, -1.0, 1.0), torch.ones(count)], dim=1)
    windows = torch.cat([torch.diag_embed(scales), centres.unsqueeze(2)], dim=2).to(images)  # (B, 2, 3)
    grid = affine_grid(windows, list(images.shape), align_corners=False)
    return grid_sample(images, grid, padding_mode="reflection", align_corners=False)
