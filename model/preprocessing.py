"""From an opened image to the pixels and then the floats that the CNN reads. Stored in every checkpoint.

Two halves, so that only bytes travel between processes: `pixels` runs on the CPU beside the reader and gives uint8,
`normalize` runs on the device and gives floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from model.errors import OptionError

Pixels = npt.NDArray[np.uint8]

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)  # these orientations swap width and height
_LONGEST = 4  # times the shorter side: what of the longer one is looked at before the square is cut out


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the CNN's input.

    Args:
        image_size: side of the square input, in pixels.
        resize: "stretch" scales both sides to `resize_size`, as neuraltalk2 does; "shorter_side" keeps the aspect
            ratio. Either way a centre crop of `image_size` follows.
        resize_size: side to scale to, in pixels, at least `image_size`.
        mean, std: of the RGB channels in [0, 1]; the defaults are ImageNet's.
    """

    image_size: int = 224
    resize: Literal["stretch", "shorter_side"] = "stretch"
    resize_size: int = 224
    mean: Sequence[float] = (0.485, 0.456, 0.406)
    std: Sequence[float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if not 1 <= self.image_size <= self.resize_size:
            raise OptionError(
                f"image_size is {self.image_size} and resize_size {self.resize_size}: need 1 ≤ image_size ≤ resize_size"
            )
        if self.resize not in ("stretch", "shorter_side"):
            raise OptionError(f"resize is {self.resize!r}; choose stretch or shorter_side")

    def draft(self, image: Image.Image) -> None:
        """Asks a JPEG that is not decoded yet for the smallest of 1, 1/2, 1/4, 1/8 of its size that is large enough."""
        image.draft(None, self._scaled(image))

    def pixels(self, image: Image.Image) -> Pixels:
        """(image_size, image_size, 3) uint8 RGB of any PIL image: EXIF rotation applied, transparency over white.

        Raises whatever Pillow does on damaged data, where the image is not decoded yet.
        """
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
        rgb = to_rgb(image)
        if self.resize == "shorter_side":
            rgb = _without_ends(rgb)
        resized = rgb.resize(self._scaled(rgb), Image.Resampling.BILINEAR)
        left, top = ((side - self.image_size) // 2 for side in resized.size)
        square = resized.crop((left, top, left + self.image_size, top + self.image_size))
        if orientation in _UPRIGHT:  # last: turning the small square costs least
            square = square.transpose(_UPRIGHT[orientation])
        return np.asarray(square)

    def _scaled(self, image: Image.Image) -> tuple[int, int]:
        if self.resize == "stretch":
            return self.resize_size, self.resize_size
        width, height = image.size
        scale = self.resize_size / min(width, height)
        return max(self.resize_size, round(width * scale)), max(self.resize_size, round(height * scale))

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, H, W, 3) uint8 → (B, 3, H, W) float32, channels last in memory, on the same device."""
        mean = torch.tensor(self.mean, device=pixels.device)
        std = torch.tensor(self.std, device=pixels.device)
        return pixels.float().div_(255.0).sub_(mean).div_(std).permute(0, 3, 1, 2)


def _without_ends(image: Image.Image) -> Image.Image:
    """The middle of a strip, which scaled to its whole length could fill the memory."""
    width, height = image.size
    left, top = max(0, width - _LONGEST * height) // 2, max(0, height - _LONGEST * width) // 2
    return image.crop((left, top, width - left, height - top)) if left or top else image


def displayed_size(image: Image.Image) -> tuple[int, int]:
    """Width and height in pixels as a viewer shows the image, EXIF rotation applied. Call before `pixels`."""
    width, height = image.size
    return (height, width) if image.getexif().get(_EXIF_ORIENTATION, 1) in _SIDEWAYS else (width, height)


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB of any PIL mode: 16-bit and float greys scaled to 8 bits, transparency composited over white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        grey = np.asarray(image).astype(np.float64)
        top = 65535.0 if image.mode.startswith("I") else max(1.0, float(grey.max(initial=0.0)))
        return Image.fromarray((grey.clip(0.0, top) * (255.0 / top)).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
