"""From any mode of a decoded PIL image to RGB."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from model.errors import PixelError

_DEPTHS = tuple(2.0**bits - 1.0 for bits in (8, 10, 12, 14, 16))
"""Greatest values of greys, as cameras and scanners give them."""


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB of any PIL mode, transparency composited over white. Raises PixelError where Pillow cannot convert it.

    Greys of more than 8 bits are scaled by how many bits the image's greatest value needs: 8, 10, 12, 14 or 16, as
    cameras have them, so that one of 12 bits is not black. Greater values, and floats above 1, are scaled by the
    greatest; floats up to 1 are taken to reach from 0 to 1. What is negative or no number is black.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        return _deep_to_rgb(np.asarray(image), whole=image.mode.startswith("I"))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = converted(image, "RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return converted(image, "RGB")


def converted(image: Image.Image, mode: str) -> Image.Image:
    """The image in another mode. Raises PixelError where Pillow cannot, on a damaged palette, say."""
    try:
        return image.convert(mode)
    except MemoryError:
        raise
    except Exception as error:
        raise PixelError(f"{type(error).__name__}: {error}") from error


def _deep_to_rgb(values: npt.NDArray[Any], *, whole: bool) -> Image.Image:
    """(H, W) integers, or floats → grey RGB."""
    grey = np.nan_to_num(values.astype(np.float64), copy=False, posinf=np.inf, neginf=0.0)
    greatest = float(grey.max(initial=0.0, where=np.isfinite(grey)))
    top = next((top for top in _DEPTHS if greatest <= top), greatest) if whole else max(1.0, greatest)
    return Image.fromarray((grey.clip(0.0, top) * (255.0 / top)).astype(np.uint8)).convert("RGB")
