"""The caption stage: uint8 pixels → rows of `schema.CAPTIONED`. A picklable callable from table to table."""

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
from model.vision.preprocessing import Pixels
from pipeline.inference import captioner_store
from pipeline.inference.pixel_columns import as_pixels, as_views, time_shares
from pipeline.inference.reranking import build_reranker
from pipeline.schema import CAPTIONED, TOKEN_PROBS, ErrorCode, extended


class CaptionStage:
    """Captions decoded images. Holds the captioner, so there is one per process that captions.

    Args:
        captioner: directory, name or URL of a captioner, or those of an ensemble.
        search: options of the search.
        weights: weights of the captioners of an ensemble; None for equal ones.
        rerank: options of reranking.
        device, dtype: as for `Captioner.load`.
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

    @property
    def device(self) -> torch.device:
        """The device that computes captions."""
        return self._captioner.device

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Maps the output of a `DecodeStage` for the same preprocessings to rows of `schema.CAPTIONED`."""
        began = time.perf_counter()
        good = rows["pixels"].is_valid().to_numpy()
        captions: list[Caption | None] = [None] * len(rows)
        errors = {name: rows[name].to_pylist() for name in ("error_code", "error_message")}
        if good.any():
            found = self._bisected(as_pixels(rows["pixels"])[good])
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
        columns["caption_s"] = time_shares(time.perf_counter() - began, len(rows))
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
            return list(self._captioner.caption_pixels(as_views(pixels, self._views), self._search, self._scorer))
        except torch.OutOfMemoryError:
            pass  # outside of the handler, where the exception no longer holds tensors
        torch.cuda.empty_cache()
        half = len(pixels) // 2
        return [*self._bisected(pixels[:half]), *self._bisected(pixels[half:])] if half else [None]


def _token_probs(caption: Caption) -> list[float] | None:
    each = caption.candidates[0].token_log_probs
    return None if each is None else [math.exp(log_prob) for log_prob in each]
