"""The device of a captioning job, and the number of its captioners."""

from __future__ import annotations

import os
from dataclasses import replace

import torch

from cluster.connect import Resources
from configs.caption import CaptionConfig
from configs.captioning import CaptioningOptions, LocalConfig, RayConfig
from model.device import choose_device, describe_device
from pipeline.captioners.protocol import ImageCaptioner

GPU_WAIT_S = 120.0
"""Seconds to wait for a worker with the requested GPUs: a cluster may have to start a node."""


def with_hints(config: CaptionConfig, captioner: ImageCaptioner) -> CaptionConfig:
    """Returns the options with the captioner's batch size, unless there is one, and the CPU if it uses no GPU."""
    config = replace(config, batch_size=config.batch_size or captioner.batch_size)
    return config if captioner.uses_gpu else replace(config, device="cpu", ray=replace(config.ray, num_gpus=0.0))


def actors(ray: RayConfig, resources: Resources) -> tuple[float, int]:
    """Returns the GPUs per captioner on Ray, and the maximum number of captioners."""
    num_gpus = ray.num_gpus if ray.num_gpus >= 0 else float(resources.num_gpus > 0)
    max_actors = ray.max_actors or max(1, int(resources.num_gpus / num_gpus if num_gpus else resources.num_cpus))
    return num_gpus, max_actors


def num_threads(local: LocalConfig) -> int:
    """Returns the number of threads of the local runner."""
    return local.num_threads or torch.get_num_threads()


def slots(config: CaptioningOptions, captioner: ImageCaptioner, resources: Resources | None) -> dict[str, float]:
    """Returns the parallelism of each stage, by name. Without GPUs, the captioners decode, too."""
    if not resources:
        threads = num_threads(config.local)
        on_cores = (
            captioner.is_thread_safe and not config.captioner_timeout_s and choose_device(config.device).type == "cpu"
        )
        return {"read": 1, "decode": threads, "caption": threads if on_cores else 1}
    num_gpus, max_actors = actors(config.ray, resources)
    return {"read": resources.num_cpus, "decode": resources.num_cpus if num_gpus else max_actors, "caption": max_actors}


def device(requested: str, ray: RayConfig, resources: Resources | None) -> str:
    """Returns the device to load a captioner on; with a GPU, it is never the CPU unless that was requested."""
    if resources and requested == "auto":
        return "cuda" if actors(ray, resources)[0] else "cpu"
    return requested


def check_device(requested: str, ray: RayConfig, resources: Resources | None) -> str:
    """Returns the name of the device that captioners will use. Raises OptionError or ClusterError if it is unavailable.

    Args:
        requested: the option `device`.
        resources: those of the cluster; None for the local runner.
    """
    chosen = device(requested, ray, resources)
    if not resources:
        return describe_device(choose_device(chosen))
    if chosen == "cpu":
        return "cpu"
    from pipeline.inference.ray_device import probe_worker_device

    num_gpus = actors(ray, resources)[0]
    may_grow = bool(ray.address or os.environ.get("RAY_ADDRESS"))
    wait_s = GPU_WAIT_S if may_grow or resources.num_gpus >= num_gpus else 0.0
    return probe_worker_device(chosen, num_gpus=num_gpus, num_cpus=ray.num_cpus, wait_s=wait_s)
