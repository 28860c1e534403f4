"""Folders of synthetic pictures whose files are as large as photographs, and take as long to decode."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

DISTINCT = 64
QUALITY = 88


def make_folder(folder: Path, count: int, *, width: int, height: int) -> Path:
    """Writes `count` JPEGs of at most `DISTINCT` pictures; the others are hard links to those."""
    folder.mkdir(parents=True)
    distinct = [folder / f"{i:06}.jpg" for i in range(min(count, DISTINCT))]
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda i: _write(distinct[i], i, width, height), range(len(distinct))))
    for i in range(len(distinct), count):
        os.link(distinct[i % DISTINCT], folder / f"{i:06}.jpg")
    return folder


def _write(path: Path, seed: int, width: int, height: int) -> None:
    """Writes a picture of shapes on a smooth background, with sensor-like noise."""
    random = np.random.default_rng(seed)
    ground = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    draw = ImageDraw.Draw(ground)
    for _ in range(60):
        x, y = random.integers(0, (width, height))
        w, h = random.integers(5, (width // 4, height // 4))
        draw.ellipse((x, y, x + w, y + h), fill=tuple(random.integers(0, 256, 3).tolist()))
    soft = np.asarray(ground.filter(ImageFilter.GaussianBlur(1)), np.float32)
    grain = random.normal(0, 9, (height, width, 1))
    Image.fromarray((soft + grain).clip(0, 255).astype(np.uint8)).save(path, quality=QUALITY)
