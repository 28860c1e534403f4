"""The local runner, the reference. On a CPU, threads decode and caption; else threads decode for one that captions."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing

import pyarrow as pa
import torch

from pipeline.inference.caption_stage import CaptionStage
from pipeline.inference.decode_stage import DecodeStage
from pipeline.read_options import DEFAULTS, ReadOptions
from pipeline.readers.reader import read
from pipeline.shards import Span
from pipeline.storage.prefetch import prefetch, prefetch_map

MAX_WORKERS = 8
"""Number of threads that caption side by side: Python's lock is held for a fifteenth of a caption's time."""


def run_local(
    spans: Iterable[Span],
    decode: DecodeStage,
    make_caption_stage: Callable[[], CaptionStage],
    *,
    batch_size: int,
    options: ReadOptions = DEFAULTS,
    num_threads: int,
) -> Generator[pa.Table]:
    """Yields the captioned rows (`schema.CAPTIONED`) of the spans, in order.

    Args:
        spans: the spans to caption.
        decode: the decode stage.
        make_caption_stage: called in the process that captions.
        batch_size: number of images per batch.
        options: the options by which the shards are read.
        num_threads: number of cores to compute on, with a CPU as the device, or of threads that decode for a GPU.
    """
    caption = make_caption_stage()
    encoded = prefetch(read(spans, batch_size=batch_size, options=options), depth=2)
    if caption.runs_on_cores:
        captioned = _caption_on_cores(encoded, decode, caption, num_threads)
    else:
        captioned = _caption_decoded(encoded, decode, caption, num_threads)
    with closing(caption), closing(encoded), closing(captioned):
        yield from captioned


def _caption_decoded(
    encoded: Iterable[pa.Table], decode: DecodeStage, caption: CaptionStage, num_threads: int
) -> Generator[pa.Table]:
    """Threads decode ahead, the calling thread captions."""
    with closing(prefetch_map(decode, encoded, threads=num_threads, depth=num_threads + 1)) as decoded:
        yield from caption.in_turn(decoded)


def _caption_on_cores(
    encoded: Iterable[pa.Table], decode: DecodeStage, caption: CaptionStage, num_threads: int
) -> Generator[pa.Table]:
    """Each thread decodes a batch and captions it on cores of its own, so that none waits for another's share."""
    workers, before = min(num_threads, MAX_WORKERS), torch.get_num_threads()

    def use_own_cores() -> None:
        torch.set_num_threads(num_threads // workers)

    def both(rows: pa.Table) -> pa.Table:
        return caption(decode(rows))

    try:
        with closing(prefetch_map(both, encoded, threads=workers, depth=workers, initializer=use_own_cores)) as rows:
            yield from rows
    finally:
        torch.set_num_threads(before)  # the number of this thread, but also that of threads to come
