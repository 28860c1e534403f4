"""From an opened image to the pixels and then the floats that the CNN reads. Stored in every checkpoint.

Two halves, so that only bytes travel between processes: `pixels` runs on the CPU beside the reader and gives uint8,
`normalize` runs on the device and gives floats.
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
        resampling: "bilinear" is Pillow's, whose JPEGs may be decoded at a smaller scale; "torch" that of Torch's image
            package (`torch_image`), to the bit.
        crop_offset: of the crop from the left and the top, in pixels; None is the middle.
        loading: "standard" applies EXIF rotation and shows what is transparent over white; "torch" does as Torch's
            image.load, which does neither: alpha is left out, and of 16 bits the upper 8 are taken.
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
    def view(self) -> Preprocessing:
        """All of it that decides `pixels`: those of equal views are the same. It can be the key of a dictionary."""
        return replace(self, mean=Preprocessing.mean, std=Preprocessing.std)

    def at(self, image_size: int) -> Preprocessing:
        """The same for a square input of another side, in pixels: the same share of the image is cut out."""
        scale = image_size / self.image_size
        margin = round((self.resize_size - self.image_size) * scale)
        offset = None if self.crop_offset is None else round(self.crop_offset * scale)
        return replace(self, image_size=image_size, resize_size=image_size + margin, crop_offset=offset)

    def draft(self, image: Image.Image) -> None:
        """Asks a JPEG that is not decoded yet for the smallest of 1, 1/2, 1/4, 1/8 of its size that is large enough.

        Not where every pixel must be as it is in the file.
        """
        if self.resampling == "bilinear":
            draft_jpeg(image, self._scaled(image))

    def pixels(self, image: Image.Image) -> Pixels:
        """(image_size, image_size, 3) uint8 RGB of any PIL image.

        Raises PixelError for an image whose colours cannot be read, and whatever Pillow does on damaged data, where the
        image is not decoded yet.
        """
        standard = self.loading == "standard"
        turned = orientation(image) if standard else 1
        rgb = to_rgb(image) if standard else torch7_image.to_rgb(image)
        if self.resize == "shorter_side":
            rgb = _without_ends(rgb)
        resized = self._resized(rgb)
        left, top = (
            (side - self.image_size) // 2 if self.crop_offset is None else self.crop_offset for side in resized.size
        )
        square = resized.crop((left, top, left + self.image_size, top + self.image_size))
        if turned in _UPRIGHT:  # last: turning the small square costs least
            square = square.transpose(_UPRIGHT[turned])
        return np.asarray(square)

    def _resized(self, rgb: Image.Image) -> Image.Image:
        if self.resampling == "torch":
            return Image.fromarray(torch7_image.scale(np.asarray(rgb), *self._scaled(rgb)))
        return rgb.resize(self._scaled(rgb), Image.Resampling.BILINEAR)

    def _scaled(self, image: Image.Image) -> tuple[int, int]:
        if self.resize == "stretch":
            return self.resize_size, self.resize_size
        width, height = image.size
        scale = self.resize_size / min(width, height)
        return max(self.resize_size, round(width * scale)), max(self.resize_size, round(height * scale))

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, H, W, 3) uint8 → (B, 3, H, W) float32, channels last in memory, on the same device."""
        mean = torch.tensor([255.0 * value for value in self.mean], device=pixels.device)
        std = torch.tensor([255.0 * value for value in self.std], device=pixels.device)
        return pixels.float().sub_(mean).div_(std).permute(0, 3, 1, 2)


def _without_ends(image: Image.Image) -> Image.Image:
    """The middle of a strip, which scaled to its whole length could fill the memory."""
    width, height = image.size
    left, top = max(0, width - _LONGEST * height) // 2, max(0, height - _LONGEST * width) // 2
    return image.crop((left, top, width - left, height - top)) if left or top else image


def draft_jpeg(image: Image.Image, size: tuple[int, int]) -> None:
    """Asks a JPEG that is not decoded yet for the smallest scale that is at least `size`.

    Of other formats nothing is asked: HEIF's reader would take a thumbnail, which may show something else.
    """
    if image.format in ("JPEG", "MPO"):
        image.draft(None, size)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation that is still to be applied, 1 to 8; 1 where none is given, or the metadata are damaged.

    Decodes the image: some readers apply it then (Pillow's of TIFF), and some find it only behind the pixels (PNG).
    """
    image.load()
    for _ in range(2):  # after a failure, Pillow gives what it had read before
        try:
            found = image.getexif().get(_EXIF_ORIENTATION, 1)
            return int(found) if found in _UPRIGHT else 1
        except Exception:  # noqa: BLE001 - a third-party parser of foreign bytes
            continue
    return 1


def displayed_size(image: Image.Image, stored: tuple[int, int] | None = None) -> tuple[int, int]:
    """Width and height in pixels as a viewer shows the image, EXIF rotation applied.

    Args:
        image: is decoded, if it is not yet.
        stored: width and height before a draft made them smaller.
    """
    turned = orientation(image)
    width, height = stored or image.size
    return (height, width) if turned in _SIDEWAYS else (width, height)
