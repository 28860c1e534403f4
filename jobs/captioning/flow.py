"""The flow of a captioning job, read → decode → caption, on the local or the Ray runner."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial

import pyarrow as pa

from cluster import connect
from cluster.connect import Resources
from configs.caption import CaptionConfig
from jobs.captioning import placement
from jobs.captioning.job_description import read_options
from jobs.captioning.progress import report_startup
from model.device import choose_device
from pipeline.captioners.failures import STOP_AFTER
from pipeline.captioners.protocol import ImageCaptioner
from pipeline.captioners.supervised import SupervisedCaptioner
from pipeline.inference.caption_stage import CaptionStage
from pipeline.inference.decode_stage import DecodeStage
from pipeline.shards import Span

CPU_BATCH_IMAGES, CUDA_BATCH_IMAGES = 32, 256
"""Default batch sizes; that of CUDA until another one is found by trial."""
LOCAL_TRIAL_ROWS, RAY_TRIAL_ROWS = 4 * CUDA_BATCH_IMAGES, 2 * CUDA_BATCH_IMAGES
"""Rows on which the batch size is found: on Ray, those that an actor is given at once."""


def caption_spans(
    config: CaptionConfig, captioner: ImageCaptioner, spans: list[Span], resources: Resources | None
) -> Generator[pa.Table]:
    """Yields the captioned rows of the spans, on Ray if there are resources of a cluster, else in this process."""
    if not spans:
        return
    decode = DecodeStage(captioner.inputs)
    device = placement.device(config.device, config.ray, resources)
    # A job that may end with errors only is not stopped by them.
    stop_after = 0 if config.max_error_rate == 1.0 else STOP_AFTER
    timeout_s = config.captioner_timeout_s
    supervised = SupervisedCaptioner(captioner, timeout_s) if timeout_s else captioner
    make_caption_stage = partial(CaptionStage, supervised, device=device, stop_after=stop_after)
    if not resources:
        from pipeline.inference.local_runner import run_local

        on_cuda = choose_device(config.device).type == "cuda"
        trial_rows = LOCAL_TRIAL_ROWS if on_cuda and not config.batch_size else 0
        yield from run_local(
            spans,
            decode,
            partial(make_caption_stage, trial_rows=trial_rows),
            batch_size=config.batch_size or (CUDA_BATCH_IMAGES if on_cuda else CPU_BATCH_IMAGES),
            options=read_options(config),
            num_threads=placement.num_threads(config.local),
        )
        return
    from pipeline.inference.ray_runner import run_ray
    from pipeline.inference.shipping import make_shippable

    make_shippable(captioner)
    pool = placement.ray_pool(config.ray, resources, captioner.memory_bytes)
    trial_rows = RAY_TRIAL_ROWS if pool.num_gpus and not config.batch_size else 0
    yield from run_ray(
        spans,
        decode,
        partial(make_caption_stage, trial_rows=trial_rows),
        batch_size=config.batch_size or (CUDA_BATCH_IMAGES if pool.num_gpus else CPU_BATCH_IMAGES),
        options=read_options(config),
        actors=(pool.min_actors, pool.max_actors),
        fitting=lambda: pool.fitting(connect.resources()),
        actor_resources={"num_cpus": pool.num_cpus, "num_gpus": pool.num_gpus, "memory": pool.memory},
        report_startup=report_startup,
    )
