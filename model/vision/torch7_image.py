"""Torch7's image package, bit for bit: `image.load`, and `image.scale` on byte tensors (generic/image.c).

Scaling is separable, first along the rows, then along the columns, with each pass rounded to bytes. Where a side
shrinks, a pixel is the mean of the area it covers; where it grows, pixels are interpolated linearly between neighbours,
with the corners aligned. Sums are in float32 and in the original's order.

Letters: H height, W width, N pixels along the scaled side, C bytes across it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from model.vision.image_modes import convert

Bytes = npt.NDArray[np.uint8]

_STRIPE_BYTES = 2048  # width of the stripes processed at a time, so that sums stay in the cache


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts an image to RGB, dropping alpha and the lower 8 of 16 bits, and ignoring the EXIF orientation."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if "transparency" in image.info or image.mode in ("PA", "La", "RGBa"):
        return convert(image, "RGBA").convert("RGB")
    return image if image.mode == "RGB" else convert(image, "RGB")


def scale(pixels: Bytes, width: int, height: int) -> Bytes:
    """Scales (H, W, 3) uint8 to (height, width, 3) uint8."""
    rows, columns, channels = pixels.shape
    across = np.ascontiguousarray(pixels.transpose(1, 0, 2)).reshape(columns, rows * channels)
    narrow = _resample(across, width).reshape(width, rows, channels)
    down = np.ascontiguousarray(narrow.transpose(1, 0, 2)).reshape(rows, width * channels)
    return _resample(down, height).reshape(height, width, channels)


def _resample(lines: Bytes, size: int) -> Bytes:
    """Resamples (N, C) bytes to (size, C)."""
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
    last = ends.astype(np.int64)  # the last pixel that the area covers, partly
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
    return _round(total / area[:, None])


def _enlarge(lines: Bytes, size: int) -> Bytes:
    position = np.arange(size, dtype=np.float32) * (np.float32(len(lines) - 1) / np.float32(size - 1))
    left = position.astype(np.int64)
    share = (position - left.astype(np.float32))[:, None]
    right = np.minimum(left + 1, len(lines) - 1)
    scaled = _round((1 - share) * lines[left] + share * lines[right])
    scaled[-1] = lines[-1]
    return scaled


def _round(values: npt.NDArray[Any]) -> Bytes:
    return (values + np.float32(0.5)).clip(0, 255).astype(np.uint8)
