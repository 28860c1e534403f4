"""Encoded images of every format that Pillow writes, and ways to damage them, as hypothesis strategies."""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from PIL import Image

LONG = os.environ.get("CHAOS") == "full"
MODES = {
    "JPEG": ("RGB", "L", "CMYK"),
    "MPO": ("RGB",),
    "PNG": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("P", "L", "RGB"),
    "TIFF": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16", "I", "F", "CMYK", "YCbCr", "LAB"),
    "AVIF": ("RGB", "RGBA", "L"),
    "JPEG2000": ("RGB", "RGBA", "L", "LA", "I;16"),
    "BMP": ("RGB", "L", "P", "1"),
    "DIB": ("RGB",),
    "PPM": ("RGB", "L", "1", "I;16", "F"),
    "TGA": ("RGB", "RGBA", "L", "P"),
    "ICO": ("RGBA",),
    "ICNS": ("RGBA",),
    "PCX": ("RGB", "L", "P", "1"),
    "SGI": ("RGB", "RGBA", "L"),
    "QOI": ("RGB", "RGBA"),
    "DDS": ("RGB", "RGBA"),
    "IM": ("RGB", "L", "F"),
    "MSP": ("1",),
    "SPIDER": ("F",),
    "XBM": ("1",),
    "BLP": ("P",),
}
"""By format, modes of images that can be written."""
WITH_EXIF = ("JPEG", "PNG", "WEBP", "AVIF")


def fuzzed(examples: int) -> settings:
    """Settings for a number of reproducible examples; with CHAOS=full many more, chosen at random."""
    unhurried = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
    return settings(
        max_examples=examples * 50 if LONG else examples,
        derandomize=not LONG,
        deadline=None,
        database=None,
        suppress_health_check=unhurried,
    )


def noise(mode: str, width: int, height: int, seed: int) -> Image.Image:
    """Makes an image of noise in a mode."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    image = Image.fromarray(values)
    if mode == "LAB":
        return Image.frombytes("LAB", image.size, image.tobytes())
    if mode in ("I;16", "I", "F"):
        grey = values[..., 0].astype(np.uint16) * 16
        return Image.fromarray(grey if mode == "I;16" else grey.astype(np.int32 if mode == "I" else np.float32))
    return image.convert("L").convert("LA") if mode == "LA" else image.convert(mode)


def encode(form: str, mode: str, *, width: int = 24, height: int = 17, seed: int = 0, **options: Any) -> bytes:
    """Encodes an image as a file of a format."""
    image = noise(mode, *((32, 32) if form in ("ICO", "ICNS") else (width, height)), seed)
    if form == "ICO":
        options["sizes"] = [(32, 32)]
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@st.composite
def images(draw: st.DrawFn, forms: tuple[str, ...] = tuple(MODES)) -> bytes:
    """Generates undamaged images of unusual sizes in all formats and modes."""
    form = draw(st.sampled_from(forms))
    mode = draw(st.sampled_from(MODES[form]))
    width, height = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    return encode(form, mode, width=width, height=height, seed=draw(st.integers(0, 5)))


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Damages bytes: cuts, flips, or replaces, doubles or removes a run; more often near the beginning."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(1, 4))):
        last = len(data) - 1
        if last < 1:
            break
        position = draw(st.one_of(st.integers(0, min(last, 120)), st.integers(0, last)))
        way = draw(st.sampled_from(["flip", "run", "cut", "out", "twice", "large"]))
        length = draw(st.integers(1, 40))
        if way == "flip":
            data[position] ^= draw(st.integers(1, 255))
        elif way == "run":
            data[position : position + length] = draw(st.binary(max_size=length))
        elif way == "large":
            data[position : position + 4] = draw(st.sampled_from([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4)]))
        elif way == "cut":
            del data[position:]
        elif way == "out":
            del data[position : position + length]
        else:
            data[position:position] = data[position : position + length]
    return bytes(data)
