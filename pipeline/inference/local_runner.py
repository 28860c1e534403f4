"""The local runner, which is the reference: threads read and decode ahead, the calling thread captions."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from typing import Any

import pyarrow as pa

from pipeline.inference.caption_stage import CaptionStage
from pipeline.inference.decode_stage import DecodeStage
from pipeline.read_options import DEFAULTS, ReadOptions
from pipeline.readers.reader import read
from pipeline.shards import Span
from pipeline.storage.prefetch import prefetch, prefetch_map


def run_local(
    spans: Iterable[Span],
    decode: DecodeStage,
    caption_arguments: Mapping[str, Any],
    *,
    batch_size: int,
    options: ReadOptions = DEFAULTS,
    num_decode_threads: int,
) -> Generator[pa.Table]:
    """Yields the captioned rows (`schema.CAPTIONED`) of the spans, in order.

    Args:
        spans: the spans to caption.
        decode: the decode stage.
        caption_arguments: arguments of `CaptionStage`.
        batch_size: number of images per batch.
        options: the options by which the shards are read.
        num_decode_threads: number of threads that decode.
    """
    caption = CaptionStage(**caption_arguments)
    encoded = prefetch(read(spans, batch_size=batch_size, options=options), depth=2)
    decoded = prefetch_map(decode, encoded, threads=num_decode_threads, depth=num_decode_threads + 1)
    with closing(encoded), closing(decoded):
        for rows in decoded:
            yield caption(rows)
