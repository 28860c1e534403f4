"""The flow of a captioning job, read → decode → caption, on the local or the Ray runner."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from cluster.connect import Resources
from configs.caption import CaptionConfig
from jobs.captioning import placement
from jobs.captioning.job_description import read_options
from jobs.captioning.progress import report_startup
from model.captioner import checkpoint
from model.device import choose_device
from pipeline.inference.decode_stage import DecodeStage
from pipeline.shards import Span

CPU_BATCH_IMAGES, CUDA_BATCH_IMAGES = 32, 256
"""Default batch sizes."""


def caption_spans(
    config: CaptionConfig, captioners: list[Path], spans: list[Span], resources: Resources | None
) -> Generator[pa.Table]:
    """Yields the captioned rows of the spans, on Ray if there are resources of a cluster, else in this process.

    Args:
        captioners: directories of all captioners, whose preprocessings the images need.
    """
    if not spans:
        return
    decode = DecodeStage(*map(checkpoint.load_preprocessing, captioners))
    caption = {
        "captioner": [_location_for_workers(captioner) for captioner in config.captioner],
        "search": config.search,
        "weights": config.captioner_weights,
        "rerank": replace(config.rerank, captioner=_location_for_workers(config.rerank.captioner)),
        "device": placement.device(config.device, config.ray, resources),
        "dtype": config.dtype,
    }
    if not resources:
        from pipeline.inference.local_runner import run_local

        on_cuda = choose_device(config.device).type == "cuda"
        yield from run_local(
            spans,
            decode,
            caption,
            batch_size=config.batch_size or (CUDA_BATCH_IMAGES if on_cuda else CPU_BATCH_IMAGES),
            options=read_options(config),
            num_threads=placement.num_threads(config.local),
        )
        return
    from pipeline.inference.ray_runner import run_ray

    num_gpus, max_actors = placement.actors(config.ray, resources)
    yield from run_ray(
        spans,
        decode,
        caption,
        batch_size=config.batch_size or (CUDA_BATCH_IMAGES if num_gpus else CPU_BATCH_IMAGES),
        options=read_options(config),
        actors=(min(config.ray.min_actors or max_actors, max_actors), max_actors),
        actor_resources={"num_cpus": config.ray.num_cpus, "num_gpus": num_gpus},
        report_startup=report_startup,
    )


def _location_for_workers(captioner: str) -> str:
    """Returns an absolute path for a directory; workers look up a name in the zoo of the code shipped to them."""
    return str(Path(captioner).absolute()) if captioner and Path(captioner).exists() else captioner
