"""Converts between arrays of pixels and table columns, without copies."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from model.vision.preprocessing import Pixels, Preprocessing

CHANNELS = 3


def time_shares(seconds: float, rows: int) -> pa.Array:
    """Divides the time of a table evenly among its rows, as float32 seconds."""
    return pa.array(np.full(rows, seconds / max(1, rows), np.float32))


def as_column(pixels: Pixels, *, valid: list[bool]) -> pa.Array:
    """Views pixels (B, bytes) as a column of B fixed-size binaries, without a copy."""
    validity = pa.array(valid, pa.bool_()).buffers()[1]
    kind = pa.binary(math.prod(pixels.shape[1:]))
    return pa.Array.from_buffers(kind, len(pixels), [validity, pa.py_buffer(pixels)])


def as_pixels(column: pa.ChunkedArray) -> Pixels:
    """Views a column of B fixed-size binaries as pixels (B, bytes), without a copy if it is in one chunk."""
    array = column.combine_chunks()
    flat = np.frombuffer(array.buffers()[1], np.uint8)
    return flat.reshape(-1, array.type.byte_width)[array.offset : array.offset + len(array)]


def as_views(pixels: Pixels, views: Sequence[Preprocessing]) -> dict[Preprocessing, Pixels]:
    """Splits pixels (B, bytes) into (B, image_size, image_size, 3) for each preprocessing, without a copy."""
    ends = np.cumsum([pixel_bytes(view) for view in views])[:-1]
    parts = np.split(pixels, ends, axis=1)
    return {
        view: part.reshape(-1, view.image_size, view.image_size, CHANNELS)
        for view, part in zip(views, parts, strict=True)
    }


def pixel_bytes(view: Preprocessing) -> int:
    """Returns the size of one image's pixels in bytes."""
    return view.image_size**2 * CHANNELS
