"""The stages between reading and writing: plain, picklable callables from Arrow table to Arrow table.

decode   encoded images (schema.ENCODED)          → uint8 pixels
caption  uint8 pixels                             → the rows of the output (schema.ROW) and their position
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from configs.rerank import Rerank
from configs.search import Search
from model.captioner.base import Caption
from model.device import keep_freed_memory
from model.vision.preprocessing import Pixels, Preprocessing
from pipeline.errors import DataError
from pipeline.images.decoding import decode
from pipeline.inference import captioner_store
from pipeline.inference.reranking import build_reranker
from pipeline.schema import CAPTIONED, TOKEN_PROBS, ErrorCode, extended

CHANNELS = 3


class DecodeStage:
    """Decodes images for the preprocessing of one or several captioners."""

    def __init__(self, *preprocessings: Preprocessing) -> None:
        self._views = list(dict.fromkeys(preprocessing.pixel_key for preprocessing in preprocessings))

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Replaces `image` by `pixels`, `width` and `height`; an image that cannot be decoded gets its error code.

        `pixels` is fixed-size binary, image_size × image_size × RGB bytes of each distinct view, one after the other,
        null where there is an error.
        """
        began = time.perf_counter()
        pixels = np.zeros((len(rows), sum(map(_view_bytes, self._views))), np.uint8)
        found = {name: rows[name].to_pylist() for name in ("error_code", "error_message")}
        sizes: list[tuple[int, int] | tuple[None, None]] = [(None, None)] * len(rows)
        for i, data in enumerate(rows["image"]):
            if data.is_valid:
                try:
                    sizes[i] = self._decode(data.as_py(), pixels[i])
                except DataError as error:
                    found["error_code"][i], found["error_message"][i] = error.code, error.message
        columns = {name: pa.array(values, pa.string()) for name, values in found.items()}
        columns["pixels"] = _as_column(pixels, valid=[code is None for code in found["error_code"]])
        columns["width"] = pa.array([width for width, _ in sizes], pa.int32())
        columns["height"] = pa.array([height for _, height in sizes], pa.int32())
        columns["decode_s"] = _shares(time.perf_counter() - began, len(rows))
        return pa.table({name: rows[name] for name in rows.column_names if name not in {"image", *columns}} | columns)

    def _decode(self, data: bytes, pixels: Pixels) -> tuple[int, int]:
        """Fills `pixels`; returns width and height as displayed."""
        first, size = 0, (0, 0)
        for view in self._views:  # each decoded from the file, so that the result does not depend on the others
            found, size = decode(data, view)
            pixels[first : first + _view_bytes(view)] = found.reshape(-1)
            first += _view_bytes(view)
        return size


class CaptionStage:
    """Captions decoded images. Holds the captioner, so there is one per process that captions.

    Args:
        captioner: directory, name or URL, as `captioner_store.find` takes it, or those of an ensemble.
        search: how captions are searched for.
        weights: of the captioners of an ensemble; None for equal ones.
        rerank: the order of the candidates.
        device, dtype: as `Captioner.load` takes them.
    """

    def __init__(
        self,
        captioner: str | Sequence[str],
        search: Search,
        *,
        weights: Sequence[float] | None = None,
        rerank: Rerank = Rerank(),  # noqa: B008
        device: str = "auto",
        dtype: str = "auto",
    ) -> None:
        keep_freed_memory()
        names = [captioner] if isinstance(captioner, str) else captioner
        self._captioner = captioner_store.load(names, weights=weights, device=device, dtype=dtype)
        self._search = search
        self._scorer = build_reranker(rerank, search, device=device, dtype=dtype)
        self._views = list(
            dict.fromkeys([*self._captioner.pixel_keys, *(self._scorer.pixel_keys if self._scorer else ())])
        )
        self._schema = extended(CAPTIONED, [TOKEN_PROBS.name] if self._search.token_probs else [])

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Maps the output of a `DecodeStage` for the same preprocessings to rows of `schema.CAPTIONED`."""
        began = time.perf_counter()
        good = rows["pixels"].is_valid().to_numpy()
        captions: list[Caption | None] = [None] * len(rows)
        errors = {name: rows[name].to_pylist() for name in ("error_code", "error_message")}
        if good.any():
            found = self._bisected(_as_pixels(rows["pixels"])[good])
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
            "token_probs": [caption and _token_probs(caption) for caption in captions],
            "batch_images": [len(rows)] * len(rows),
        }
        columns["caption_s"] = _shares(time.perf_counter() - began, len(rows))
        return pa.table(
            {
                field.name: pa.array(columns[field.name], field.type) if field.name in columns else rows[field.name]
                for field in self._schema
            },
            schema=self._schema,
        )

    def _bisected(self, pixels: Pixels) -> list[Caption | None]:
        """Captions a batch, in halves if device memory is too small; None for an image that does not fit alone."""
        try:
            return list(self._captioner.caption_pixels(_as_views(pixels, self._views), self._search, self._scorer))
        except torch.OutOfMemoryError:
            pass  # outside of the handler, where the exception no longer holds tensors
        torch.cuda.empty_cache()
        half = len(pixels) // 2
        return [*self._bisected(pixels[:half]), *self._bisected(pixels[half:])] if half else [None]


def _shares(seconds: float, rows: int) -> pa.Array:
    return pa.array(np.full(rows, seconds / max(1, rows), np.float32))


def _as_column(pixels: Pixels, *, valid: list[bool]) -> pa.Array:
    """Views pixels (B, bytes) as a column of B fixed-size binaries, without a copy."""
    validity = pa.array(valid, pa.bool_()).buffers()[1]
    kind = pa.binary(math.prod(pixels.shape[1:]))
    return pa.Array.from_buffers(kind, len(pixels), [validity, pa.py_buffer(pixels)])


def _as_pixels(column: pa.ChunkedArray) -> Pixels:
    """Views a column of B fixed-size binaries as pixels (B, bytes), without a copy if it is in one chunk."""
    array = column.combine_chunks()
    flat = np.frombuffer(array.buffers()[1], np.uint8)
    return flat.reshape(-1, array.type.byte_width)[array.offset : array.offset + len(array)]


def _as_views(pixels: Pixels, views: Sequence[Preprocessing]) -> dict[Preprocessing, Pixels]:
    """Splits pixels (B, bytes) into (B, image_size, image_size, 3) for each preprocessing, without a copy."""
    ends = np.cumsum([_view_bytes(view) for view in views])[:-1]
    parts = np.split(pixels, ends, axis=1)
    return {
        view: part.reshape(-1, view.image_size, view.image_size, CHANNELS)
        for view, part in zip(views, parts, strict=True)
    }


def _view_bytes(view: Preprocessing) -> int:
    return view.image_size**2 * CHANNELS


def _token_probs(caption: Caption) -> list[float] | None:
    each = caption.candidates[0].token_log_probs
    return None if each is None else [math.exp(log_prob) for log_prob in each]
