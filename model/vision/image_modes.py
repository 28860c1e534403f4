"""Converts decoded PIL images of any mode to RGB."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from model.errors import PixelError

_DEPTHS = tuple(2.0**bits - 1.0 for bits in (8, 10, 12, 14, 16))
"""Maximum values of grey images with the bit depths of cameras and scanners."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts an image of any PIL mode to RGB, compositing transparency over white. Raises PixelError if it cannot.

    Grey images of more than 8 bits are scaled by the bit depth that their maximum needs (8, 10, 12, 14 or 16, as
    cameras have them), so that one of 12 bits does not turn black. Integers above 16 bits and floats above 1 are scaled
    by the image's maximum; other floats are taken to be in [0, 1]. Negative values and NaN are black.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        return _deep_to_rgb(np.asarray(image), whole=image.mode.startswith("I"))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = convert(image, "RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return convert(image, "RGB")


def convert(image: Image.Image, mode: str) -> Image.Image:
    """Converts an image to another PIL mode. Raises PixelError if Pillow cannot, such as for a damaged palette."""
    try:
        return image.convert(mode)
    except MemoryError:
        raise
    except Exception as error:
        raise PixelError(f"{type(error).__name__}: {error}") from error


def _deep_to_rgb(values: npt.NDArray[Any], *, whole: bool) -> Image.Image:
    """Converts a grey image (H, W), of integers (`whole`) or floats, to RGB."""
    grey = np.nan_to_num(values.astype(np.float64), copy=False, posinf=np.inf, neginf=0.0)
    maximum = float(grey.max(initial=0.0, where=np.isfinite(grey)))
    top = next((top for top in _DEPTHS if maximum <= top), maximum) if whole else max(1.0, maximum)
    return Image.fromarray((grey.clip(0.0, top) * (255.0 / top)).astype(np.uint8)).convert("RGB")
