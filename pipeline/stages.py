"""The stages between reading and writing: plain, picklable callables from Arrow table to Arrow table.

decode   encoded images (schema.ENCODED)          → uint8 pixels
caption  uint8 pixels                             → the rows of the output (schema.ROW) and their position
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from model.captioner import Caption, Captioner
from model.device import keep_freed_memory
from model.preprocessing import Pixels, Preprocessing
from model.search import Search
from pipeline import captioners
from pipeline.errors import DataError
from pipeline.images import load
from pipeline.schema import CAPTIONED, ErrorCode

CHANNELS = 3


class Decode:
    """Decodes images; bound to a captioner's preprocessing."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._preprocessing = preprocessing

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Replaces `image` by `pixels`, `width` and `height`; an image that cannot be decoded gets its error code.

        `pixels` is fixed-size binary, image_size × image_size × RGB bytes, null where there is an error.
        """
        began, size = time.perf_counter(), self._preprocessing.image_size
        pixels = np.zeros((len(rows), size, size, CHANNELS), np.uint8)
        found = {name: rows[name].to_pylist() for name in ("error_code", "error_message")}
        sizes: list[tuple[int, int] | tuple[None, None]] = [(None, None)] * len(rows)
        for i, data in enumerate(rows["image"]):
            if data.is_valid:
                try:
                    image, sizes[i] = load(data.as_py(), draft=self._preprocessing.draft)
                    pixels[i] = self._preprocessing.pixels(image)
                except DataError as error:
                    found["error_code"][i], found["error_message"][i] = error.code, error.message
        columns = {name: pa.array(values, pa.string()) for name, values in found.items()}
        columns["pixels"] = _as_column(pixels, valid=[code is None for code in found["error_code"]])
        columns["width"] = pa.array([width for width, _ in sizes], pa.int32())
        columns["height"] = pa.array([height for _, height in sizes], pa.int32())
        columns["decode_s"] = _shares(time.perf_counter() - began, len(rows))
        return pa.table({name: rows[name] for name in rows.column_names if name not in {"image", *columns}} | columns)


class CaptionPixels:
    """Captions decoded images. Holds the captioner, so it is made once in each process that captions.

    Args:
        captioner: directory, name or URL, as `captioners.find` takes it.
        search: the fields of `model.search.Search`.
        device, dtype: as `Captioner.load` takes them.
    """

    def __init__(self, captioner: str, search: Mapping[str, Any], *, device: str = "auto", dtype: str = "auto") -> None:
        keep_freed_memory()
        self._captioner = Captioner.load(captioners.find(captioner), device=device, dtype=dtype)
        self._search = Search(**search)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """What `Decode` gives → `schema.CAPTIONED`."""
        began, size = time.perf_counter(), self._captioner.preprocessing.image_size
        good = rows["pixels"].is_valid().to_numpy()
        captions: list[Caption | None] = [None] * len(rows)
        errors = {name: rows[name].to_pylist() for name in ("error_code", "error_message")}
        if good.any():
            found = self._bisected(_as_pixels(rows["pixels"], size)[good])
            for i, caption in zip(np.flatnonzero(good), found, strict=True):
                captions[i] = caption
                if caption is None:
                    errors["error_code"][i] = ErrorCode.OUT_OF_MEMORY
                    errors["error_message"][i] = "the device has not enough memory to caption this image alone"
        columns: dict[str, Any] = errors | {
            "caption": [caption and caption.text for caption in captions],
            "log_prob": [caption and caption.candidates[0].log_prob for caption in captions],
            "num_tokens": [caption and caption.candidates[0].num_tokens for caption in captions],
            "candidates": [
                caption and [{"caption": c.text, "log_prob": c.log_prob} for c in caption.candidates]
                for caption in captions
            ],
            "batch_images": [len(rows)] * len(rows),
        }
        columns["caption_s"] = _shares(time.perf_counter() - began, len(rows))
        return pa.table(
            {
                field.name: pa.array(columns[field.name], field.type) if field.name in columns else rows[field.name]
                for field in CAPTIONED
            },
            schema=CAPTIONED,
        )

    def _bisected(self, pixels: Pixels) -> list[Caption | None]:
        """Captions; a batch that is too much for the device's memory by halves, an image that is as None."""
        try:
            return list(self._captioner.caption_pixels(pixels, self._search))
        except torch.OutOfMemoryError:
            pass  # and let go of what the exception holds
        torch.cuda.empty_cache()
        half = len(pixels) // 2
        return [*self._bisected(pixels[:half]), *self._bisected(pixels[half:])] if half else [None]


def _shares(seconds: float, rows: int) -> pa.Array:
    return pa.array(np.full(rows, seconds / max(1, rows), np.float32))


def _as_column(pixels: Pixels, *, valid: list[bool]) -> pa.Array:
    """(B, H, W, 3) → B fixed-size binaries, without a copy."""
    validity = pa.array(valid, pa.bool_()).buffers()[1]
    kind = pa.binary(math.prod(pixels.shape[1:]))
    return pa.Array.from_buffers(kind, len(pixels), [validity, pa.py_buffer(pixels)])


def _as_pixels(column: pa.ChunkedArray, size: int) -> Pixels:
    """B fixed-size binaries → (B, size, size, 3), without a copy where they lie in one piece."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0)
    flat = np.frombuffer(array.buffers()[1], np.uint8)
    return flat.reshape(-1, size, size, CHANNELS)[array.offset : array.offset + len(array)]
