"""Where a captioning job computes: on which device, and with how many captioners."""

from __future__ import annotations

import os

from cluster.connect import Resources
from configs.caption import CaptionConfig
from model.device import choose_device, describe_device

GPU_WAIT_S = 120.0
"""For a worker with the GPUs that were asked for: a cluster may have to start a node."""


def actors(config: CaptionConfig, resources: Resources) -> tuple[float, int]:
    """GPUs of each captioner on Ray, and how many captioners there are at most."""
    num_gpus = config.ray.num_gpus if config.ray.num_gpus >= 0 else float(resources.num_gpus > 0)
    most = config.ray.max_actors or max(1, int(resources.num_gpus / num_gpus if num_gpus else resources.num_cpus))
    return num_gpus, most


def slots(config: CaptionConfig, resources: Resources | None) -> dict[str, float]:
    """By stage, how many of them can work at the same time. On Ray without GPUs a captioner decodes, too."""
    if not resources:
        return {"read": 1, "decode": config.local.decode_threads, "caption": 1}
    num_gpus, most = actors(config, resources)
    return {"read": resources.num_cpus, "decode": resources.num_cpus if num_gpus else most, "caption": most}


def device(config: CaptionConfig, resources: Resources | None) -> str:
    """The device of a captioner: as asked for, but of one that has a GPU, never the CPU unless that is asked for."""
    if resources and config.device == "auto":
        return "cuda" if actors(config, resources)[0] else "cpu"
    return config.device


def check_device(config: CaptionConfig, resources: Resources | None) -> str:
    """What a captioner will compute on, for people. Raises OptionError or ClusterError where it is not there.

    Args:
        resources: of the cluster; None for this process.
    """
    asked = device(config, resources)
    if not resources:
        return describe_device(choose_device(asked))
    num_gpus = actors(config, resources)[0]
    if asked == "cpu":
        return "cpu"
    from pipeline.inference.ray_device import probe_worker_device

    may_grow = bool(config.ray.address or os.environ.get("RAY_ADDRESS"))
    wait_s = GPU_WAIT_S if may_grow or resources.num_gpus >= num_gpus else 0.0
    return probe_worker_device(asked, num_gpus=num_gpus, num_cpus=config.ray.num_cpus, wait_s=wait_s)
