"""Makes JPEG thumbnails of encoded images."""

from __future__ import annotations

import io

from PIL import Image, ImageOps

from model.vision.orientation import orientation
from model.vision.preprocessing import draft_jpeg
from pipeline.images.decoding import load, rgb

QUALITY = 80
_ORIENTATION = 0x0112  # EXIF


def thumbnail(data: bytes, *, size: int) -> bytes:
    """Returns a JPEG of an encoded image: upright, over white, its longest side at most `size` pixels.

    Raises DataError for an image that cannot be decoded.
    """
    image, _ = load(data, draft=lambda image: draft_jpeg(image, (size, size)))
    small = rgb(image)
    turned = orientation(image)
    small.thumbnail((size, size), Image.Resampling.LANCZOS)
    small.info = {}  # comments and damaged EXIF stay behind
    small.getexif()[_ORIENTATION] = turned
    buffer = io.BytesIO()
    ImageOps.exif_transpose(small).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
