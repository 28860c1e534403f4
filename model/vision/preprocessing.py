"""Preprocessing: from an opened image to uint8 pixels to the float tensor that the CNN reads. Stored in checkpoints.

It has two halves, so that only bytes travel between processes: `pixels` runs on the CPU and returns uint8, `normalize`
runs on the device and returns floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn.functional import interpolate

from model.errors import OptionError
from model.vision import torch7_image
from model.vision.image_modes import to_rgb
from model.vision.orientation import orientation, upright

Pixels = npt.NDArray[np.uint8]

_MAX_ASPECT_RATIO = 4  # longer images are cropped to this ratio before they are resized


@dataclass(frozen=True)
class Preprocessing:
    """The conversion of an image to the CNN's input.

    Args:
        image_size: side of the square input, in pixels.
        resize: "stretch" scales both sides to `resize_size`, as neuraltalk2 does; "shorter_side" scales the shorter
            side to it and keeps the aspect ratio. A crop of `image_size` follows.
        resize_size: side to scale to, in pixels, at least `image_size`.
        mean, std: mean and standard deviation of the RGB channels, for values in [0, 1]; defaults are ImageNet's.
        resampling: "antialias" is PyTorch's antialiased bilinear resizing of bytes; "bilinear" is Pillow's, from which
            it differs by 1 or 2 in one byte of 50, and which takes three times as long. JPEGs may be decoded at a
            reduced scale before either. "torch" is that of Torch7's image package, bit for bit (`torch7_image`).
        crop_offset: offset of the crop from the left and the top, in pixels; None is the centre.
        loading: "standard" applies the EXIF orientation and composites transparency over white; "torch" does as
            Torch7's image.load: it ignores orientation and alpha, and keeps the upper 8 of 16 bits.

    Raises OptionError for a value out of range.
    """

    image_size: int = 224
    resize: Literal["stretch", "shorter_side"] = "stretch"
    resize_size: int = 224
    mean: Sequence[float] = (0.485, 0.456, 0.406)
    std: Sequence[float] = (0.229, 0.224, 0.225)
    resampling: Literal["antialias", "bilinear", "torch"] = "bilinear"
    crop_offset: int | None = None
    loading: Literal["standard", "torch"] = "standard"

    def __post_init__(self) -> None:
        if not 1 <= self.image_size <= self.resize_size:
            raise OptionError(
                f"image_size is {self.image_size} and resize_size {self.resize_size}: need 1 ≤ image_size ≤ resize_size"
            )
        if self.resize not in ("stretch", "shorter_side"):
            raise OptionError(f"resize is {self.resize!r}; choose stretch or shorter_side")
        if self.resampling not in ("antialias", "bilinear", "torch") or self.loading not in ("standard", "torch"):
            raise OptionError(
                f"resampling is {self.resampling!r}, choose antialias, bilinear or torch;"
                f" loading is {self.loading!r}, choose standard or torch"
            )
        if self.crop_offset is not None and not 0 <= self.crop_offset <= self.resize_size - self.image_size:
            raise OptionError(
                f"crop_offset is {self.crop_offset}; of {self.resize_size} pixels, {self.image_size} are cut out"
            )

    @property
    def pixel_key(self) -> Preprocessing:
        """The fields that determine the output of `pixels`, the others set to defaults; use it as a dictionary key."""
        return replace(self, mean=Preprocessing.mean, std=Preprocessing.std)

    def with_image_size(self, image_size: int) -> Preprocessing:
        """Returns the same preprocessing for another input side in pixels; the crop keeps its share of the image."""
        scale = image_size / self.image_size
        margin = round((self.resize_size - self.image_size) * scale)
        offset = None if self.crop_offset is None else round(self.crop_offset * scale)
        return replace(self, image_size=image_size, resize_size=image_size + margin, crop_offset=offset)

    def draft(self, image: Image.Image) -> None:
        """Requests that an undecoded JPEG be decoded at the smallest of 1, 1/2, 1/4, 1/8 scale that is large enough.

        Does nothing with Torch7's resampling, which must see every pixel of the file.
        """
        if self.resampling != "torch":
            draft_jpeg(image, self._resized_size((0, 0, *image.size)))

    def pixels(self, image: Image.Image) -> Pixels:
        """Converts any PIL image to (image_size, image_size, 3) uint8 RGB.

        Raises PixelError for an image whose colours cannot be read, and any exception of Pillow's if it is still to be
        decoded and its data are damaged.
        """
        standard = self.loading == "standard"
        rotation = orientation(image) if standard else 1
        rgb = to_rgb(image) if standard else torch7_image.to_rgb(image)
        if self.resampling != "bilinear":
            return self.square(np.array(rgb), rotation)
        box = self._box(*rgb.size)
        resized = rgb.resize(self._resized_size(box), Image.Resampling.BILINEAR, box=box)
        return self._crop(np.asarray(resized), rotation)

    def square(self, rgb: Pixels, rotation: int = 1) -> Pixels:
        """Does as `pixels` with decoded pixels (H, W, 3) uint8, unless `resampling` is "bilinear".

        Args:
            rotation: the EXIF orientation that is still to be applied, 1 to 8.
        """
        left, top, right, bottom = box = self._box(rgb.shape[1], rgb.shape[0])
        rgb = np.ascontiguousarray(rgb[top:bottom, left:right])
        width, height = self._resized_size(box)
        if self.resampling == "torch":
            return self._crop(torch7_image.scale(rgb, width, height), rotation)
        image = torch.from_numpy(rgb).permute(2, 0, 1).unsqueeze(0)
        resized = interpolate(image, size=(height, width), mode="bilinear", antialias=True)
        return self._crop(resized.contiguous(memory_format=torch.channels_last)[0].permute(1, 2, 0).numpy(), rotation)

    def _box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Returns left, top, right and bottom of what is kept of an image: not the ends of a very long one.

        Once scaled up, they could fill the memory.
        """
        left = top = 0
        if self.resize == "shorter_side":
            left, top = max(0, width - _MAX_ASPECT_RATIO * height) // 2, max(0, height - _MAX_ASPECT_RATIO * width) // 2
        return left, top, width - left, height - top

    def _resized_size(self, box: tuple[int, int, int, int]) -> tuple[int, int]:
        """Returns width and height to scale what is in `box` to."""
        if self.resize == "stretch":
            return self.resize_size, self.resize_size
        width, height = box[2] - box[0], box[3] - box[1]
        scale = self.resize_size / min(width, height)
        return max(self.resize_size, round(width * scale)), max(self.resize_size, round(height * scale))

    def _crop(self, resized: Pixels, rotation: int) -> Pixels:
        """Cuts (image_size, image_size, 3) out, and applies the orientation last, where it is cheapest."""
        top, left = (
            (side - self.image_size) // 2 if self.crop_offset is None else self.crop_offset
            for side in resized.shape[:2]
        )
        return upright(resized[top : top + self.image_size, left : left + self.image_size], rotation)

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """Maps (B, H, W, 3) uint8 pixels to (B, 3, H, W) float32, in channels-last memory format."""
        width = pixels.shape[2]  # a row's constants side by side: broadcasting over 3 channels is three times slower
        mean = torch.tensor([255.0 * value for value in self.mean], device=pixels.device).repeat(width)
        std = torch.tensor([255.0 * value for value in self.std], device=pixels.device).repeat(width)
        return pixels.flatten(2).float().sub_(mean).div_(std).view(pixels.shape).permute(0, 3, 1, 2)


def draft_jpeg(image: Image.Image, size: tuple[int, int]) -> None:
    """Requests that an undecoded JPEG be decoded at the smallest scale that is at least `size` (width, height).

    Ignores other formats: HEIF's reader would take a thumbnail, which may show something else.
    """
    if image.format in ("JPEG", "MPO"):
        image.draft(None, size)
