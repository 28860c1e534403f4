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

from model.errors import OptionError
from model.vision import torch7_image
from model.vision.image_modes import to_rgb

Pixels = npt.NDArray[np.uint8]

_EXIF_ORIENTATION = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_SIDES = (5, 6, 7, 8)  # these orientations swap width and height
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
        resampling: "bilinear" is Pillow's, and JPEGs may be decoded at a reduced scale; "torch" is that of Torch7's
            image package, bit for bit (`torch7_image`).
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
    resampling: Literal["bilinear", "torch"] = "bilinear"
    crop_offset: int | None = None
    loading: Literal["standard", "torch"] = "standard"

    def __post_init__(self) -> None:
        if not 1 <= self.image_size <= self.resize_size:
            raise OptionError(
                f"image_size is {self.image_size} and resize_size {self.resize_size}: need 1 ≤ image_size ≤ resize_size"
            )
        if self.resize not in ("stretch", "shorter_side"):
            raise OptionError(f"resize is {self.resize!r}; choose stretch or shorter_side")
        if self.resampling not in ("bilinear", "torch") or self.loading not in ("standard", "torch"):
            raise OptionError(
                f"resampling is {self.resampling!r}, choose bilinear or torch;"
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
        if self.resampling == "bilinear":
            draft_jpeg(image, self._resized_size(image))

    def pixels(self, image: Image.Image) -> Pixels:
        """Converts any PIL image to (image_size, image_size, 3) uint8 RGB.

        Raises PixelError for an image whose colours cannot be read, and any exception of Pillow's if it is still to be
        decoded and its data are damaged.
        """
        standard = self.loading == "standard"
        rotation = orientation(image) if standard else 1
        rgb = to_rgb(image) if standard else torch7_image.to_rgb(image)
        if self.resize == "shorter_side":
            rgb = _limit_aspect_ratio(rgb)
        resized = self._resize(rgb)
        left, top = (
            (side - self.image_size) // 2 if self.crop_offset is None else self.crop_offset for side in resized.size
        )
        square = resized.crop((left, top, left + self.image_size, top + self.image_size))
        if rotation in _TRANSPOSE:  # last, since rotating the small square is cheapest
            square = square.transpose(_TRANSPOSE[rotation])
        return np.asarray(square)

    def _resize(self, rgb: Image.Image) -> Image.Image:
        if self.resampling == "torch":
            return Image.fromarray(torch7_image.scale(np.asarray(rgb), *self._resized_size(rgb)))
        return rgb.resize(self._resized_size(rgb), Image.Resampling.BILINEAR)

    def _resized_size(self, image: Image.Image) -> tuple[int, int]:
        if self.resize == "stretch":
            return self.resize_size, self.resize_size
        width, height = image.size
        scale = self.resize_size / min(width, height)
        return max(self.resize_size, round(width * scale)), max(self.resize_size, round(height * scale))

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """Maps (B, H, W, 3) uint8 pixels to (B, 3, H, W) float32, in channels-last memory format."""
        width = pixels.shape[2]  # a row's constants side by side: broadcasting over 3 channels is three times slower
        mean = torch.tensor([255.0 * value for value in self.mean], device=pixels.device).repeat(width)
        std = torch.tensor([255.0 * value for value in self.std], device=pixels.device).repeat(width)
        return pixels.flatten(2).float().sub_(mean).div_(std).view(pixels.shape).permute(0, 3, 1, 2)


def _limit_aspect_ratio(image: Image.Image) -> Image.Image:
    """Crops the ends off a very long image, which could fill the memory once it is scaled up."""
    width, height = image.size
    left, top = max(0, width - _MAX_ASPECT_RATIO * height) // 2, max(0, height - _MAX_ASPECT_RATIO * width) // 2
    return image.crop((left, top, width - left, height - top)) if left or top else image


def draft_jpeg(image: Image.Image, size: tuple[int, int]) -> None:
    """Requests that an undecoded JPEG be decoded at the smallest scale that is at least `size` (width, height).

    Ignores other formats: HEIF's reader would take a thumbnail, which may show something else.
    """
    if image.format in ("JPEG", "MPO"):
        image.draft(None, size)


def orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation still to be applied, 1 to 8; 1 if there is none or the metadata are damaged.

    Decodes the image first: some of Pillow's readers then apply it themselves (TIFF) or find it only after the pixels
    (PNG).
    """
    image.load()
    for _ in range(2):  # after a failure, Pillow returns what it read so far
        try:
            found = image.getexif().get(_EXIF_ORIENTATION, 1)
            return int(found) if found in _TRANSPOSE else 1
        except Exception:  # noqa: BLE001 - a third-party parser of foreign bytes
            continue
    return 1


def displayed_size(image: Image.Image, stored: tuple[int, int] | None = None) -> tuple[int, int]:
    """Returns width and height in pixels as a viewer shows the image, with the EXIF orientation applied.

    Args:
        image: decoded if it is not yet.
        stored: width and height in the file, where `draft` reduced the image; None takes the image's own.
    """
    rotation = orientation(image)
    width, height = stored or image.size
    return (height, width) if rotation in _SWAPS_SIDES else (width, height)
