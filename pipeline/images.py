"""Opens encoded images. The only place where bytes become a PIL image, and Pillow's failures an error code."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable

from PIL import Image, UnidentifiedImageError

from model.preprocessing import displayed_size
from pipeline.errors import DataError
from pipeline.schema import ErrorCode

MAX_PIXELS = 178_956_970
"""Larger images are refused as decompression bombs: twice Pillow's warning level, where it raises by default."""

_BEGINNINGS = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"II*\0",  # TIFF
    b"MM\0*",
    b"\0\0\0\x0cjP  ",  # JPEG 2000
)

# What Pillow's plug-ins raise on damaged data. Only Pillow's own code runs under it.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    OverflowError,
    RuntimeError,  # the AVIF decoder
)


def load(data: bytes, *, draft: Callable[[Image.Image], object] | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """The decoded first frame, and its width and height in pixels as displayed.

    Args:
        data: an encoded image.
        draft: called before decoding, to ask a JPEG for a smaller scale (`Preprocessing.draft`).

    Raises DataError for what cannot be decoded to its end.
    """
    if not data:
        raise DataError(ErrorCode.EMPTY_FILE, "0 bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, on odd metadata and large images
            image = Image.open(io.BytesIO(data))
            size = displayed_size(image)
            if size[0] * size[1] > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{size[0]}×{size[1]} pixels")
            if draft:
                draft(image)
            image.load()
            return image, size
    except Image.DecompressionBombError as error:
        raise DataError(ErrorCode.DECOMPRESSION_BOMB, str(error)) from error
    except UnidentifiedImageError as error:
        if data.startswith(_BEGINNINGS) or data[8:12] == b"WEBP" or data[4:12] == b"ftypavif":
            raise DataError(ErrorCode.CORRUPT_IMAGE, f"{len(data)} bytes, cut or damaged in its headers") from error
        raise DataError(ErrorCode.NOT_AN_IMAGE, f"no image format begins with {data[:8]!r}") from error
    except _DAMAGED as error:
        raise DataError(ErrorCode.CORRUPT_IMAGE, f"{type(error).__name__}: {error}") from error
