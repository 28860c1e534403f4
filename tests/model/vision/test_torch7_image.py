"""Torch's image.scale, compared with its own results and with a loop over its sums."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from PIL import Image
from torch7_files import FIXTURES

from model.vision.torch7_image import scale

SCALED = json.loads((FIXTURES / "images.json").read_text())
one = np.float32(1)


@pytest.mark.parametrize("name", SCALED)
def test_bytes_are_torchs(name: str) -> None:
    pixels = np.asarray(Image.open(FIXTURES / "images" / SCALED[name]["file"]).convert("RGB"))
    assert list(pixels.transpose(2, 0, 1).shape) == SCALED[name]["decoded_shape_CHW"]
    scaled = scale(pixels, 256, 256).transpose(2, 0, 1)
    assert hashlib.sha256(scaled.tobytes()).hexdigest() == SCALED[name]["scaled256_sha256"]


def line(source: np.ndarray, size: int) -> list[int]:
    """Scales one line of one channel as generic/image.c does, in float32."""
    count = len(source)
    if size == count:
        return source.tolist()
    found = []
    if size > count:
        step = np.float32(count - 1) / np.float32(size - 1)
        for i in range(size - 1):
            share = np.float32(i) * step
            left = int(share)
            share -= np.float32(left)
            right = source[min(left + 1, count - 1)]
            found.append(int((one - share) * np.float32(source[left]) + share * np.float32(right) + np.float32(0.5)))
        return [*found, int(source[-1])]
    step = np.float32(count) / np.float32(size)
    begin, begin_share = 0, np.float32(0)
    for i in range(size):
        end_share = np.float32(i + 1) * step
        end = int(end_share)
        end_share -= np.float32(end)
        total, area = (one - begin_share) * np.float32(source[begin]), one - begin_share
        for inside in range(begin + 1, end):
            total, area = total + np.float32(source[inside]), area + one
        if end < count:
            total, area = total + end_share * np.float32(source[end]), area + end_share
        found.append(int(total / area + np.float32(0.5)))
        begin, begin_share = end, end_share
    return found


@pytest.mark.parametrize(
    ("height", "width"),
    [(7, 9), (8, 11), (1, 1), (1, 40), (40, 1), (2, 300), (300, 2), (9, 12), (37, 10), (10, 37), (23, 100), (8, 9)],
)
def test_sums_are_added_in_torchs_order(height: int, width: int) -> None:
    pixels = np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8)
    to_width, to_height = 11, 8
    rows = np.array([[line(row[:, c], to_width) for c in range(3)] for row in pixels])  # (H, 3, 11)
    expected = [[line(rows[:, c, x], to_height) for c in range(3)] for x in range(to_width)]  # (11, 3, 8)
    found = scale(pixels, to_width, to_height)
    assert (found.shape, found.dtype) == ((8, 11, 3), np.uint8)
    assert np.array_equal(found, np.array(expected).transpose(2, 0, 1))


def test_wide_images_are_scaled_in_stripes() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (900, 20, 3), np.uint8)  # 2,700 bytes across
    whole = scale(pixels, 6, 900)
    assert np.array_equal(whole[700:710], scale(pixels[700:710], 6, 10))


def test_black_and_white_stay() -> None:
    for value in (0, 255):
        for size in ((3, 5), (300, 500)):
            assert (scale(np.full((*size, 3), value, np.uint8), 17, 13) == value).all()
