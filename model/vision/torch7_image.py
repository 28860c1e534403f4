"""Torch's image package, to the bit: what `image.load` gives, and `image.scale` on byte tensors (generic/image.c).

Scaling is separable: first along the rows, then along the columns, each pass rounded to a byte. Where a side shrinks, a
pixel is the mean of the area it covers; where it grows, it is interpolated between neighbours, and the corners stay
where they are. All in float32, added up in the original's order.

Letters: H height, W width, N pixels along the side that is scaled, C bytes of everything across it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from model.vision.image_modes import converted

Bytes = npt.NDArray[np.uint8]

_STRIPE_BYTES = 2048  # across, at a time: what is added up stays in the cache


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB without alpha; of greys of 16 bits the upper 8. EXIF rotation is not applied."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if "transparency" in image.info or image.mode in ("PA", "La", "RGBa"):
        return converted(image, "RGBA").convert("RGB")
    return image if image.mode == "RGB" else converted(image, "RGB")


def scale(pixels: Bytes, width: int, height: int) -> Bytes:
    """(H, W, 3) uint8 → (height, width, 3)."""
    rows, columns, channels = pixels.shape
    across = np.ascontiguousarray(pixels.transpose(1, 0, 2)).reshape(columns, rows * channels)
    narrow = _along(across, width).reshape(width, rows, channels)
    down = np.ascontiguousarray(narrow.transpose(1, 0, 2)).reshape(rows, width * channels)
    return _along(down, height).reshape(height, width, channels)


def _along(lines: Bytes, size: int) -> Bytes:
    """(N, C) → (size, C)."""
    if len(lines) == size:
        return lines
    scaled = np.empty((size, lines.shape[1]), np.uint8)
    pass_ = _shrink if len(lines) > size else _enlarge
    for start in range(0, lines.shape[1], _STRIPE_BYTES):
        stripe = slice(start, start + _STRIPE_BYTES)
        scaled[:, stripe] = pass_(lines[:, stripe], size)
    return scaled


def _shrink(lines: Bytes, size: int) -> Bytes:
    ends = np.arange(1, size + 1, dtype=np.float32) * (np.float32(len(lines)) / np.float32(size))
    last = ends.astype(np.int64)  # the pixel in which the covered area ends, and how much of it is covered
    end_share = ends - last.astype(np.float32)
    first, begin_share = np.append(0, last[:-1]), 1 - np.append(np.float32(0), end_share[:-1])
    area = begin_share.copy()
    total = begin_share[:, None] * lines[first]
    for step in range(1, int((last - first).max())):
        inside = np.flatnonzero(first + step < last)
        if len(inside) == size:
            total += lines[first + step]
        else:
            total[inside] += lines[first[inside] + step]
        area[inside] += 1
    inside = np.flatnonzero(last < len(lines))
    total[inside] += end_share[inside, None] * lines[last[inside]]
    area[inside] += end_share[inside]
    return _rounded(total / area[:, None])


def _enlarge(lines: Bytes, size: int) -> Bytes:
    places = np.arange(size, dtype=np.float32) * (np.float32(len(lines) - 1) / np.float32(size - 1))
    left = places.astype(np.int64)
    share = (places - left.astype(np.float32))[:, None]
    right = np.minimum(left + 1, len(lines) - 1)
    scaled = _rounded((1 - share) * lines[left] + share * lines[right])
    scaled[-1] = lines[-1]
    return scaled


def _rounded(values: npt.NDArray[Any]) -> Bytes:
    return (values + np.float32(0.5)).clip(0, 255).astype(np.uint8)
