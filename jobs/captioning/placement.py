"""The device of a captioning job, and the number of its captioners."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from cluster import connect
from cluster.connect import Node, Resources
from configs.caption import CaptionConfig
from configs.captioning import CaptioningOptions, LocalConfig, RayConfig
from model.device import choose_device, describe_device
from pipeline.captioners.protocol import ImageCaptioner

GPU_WAIT_S = 120.0
"""Seconds to wait for a worker with the requested GPUs: a cluster may have to start a node."""
_ROUNDING = 1e-9


def with_hints(config: CaptionConfig, captioner: ImageCaptioner) -> CaptionConfig:
    """Returns the options with the captioner's batch size, unless there is one, and the CPU if it uses no GPU."""
    config = replace(config, batch_size=config.batch_size or captioner.batch_size)
    return config if captioner.uses_gpu else replace(config, device="cpu", ray=replace(config.ray, num_gpus=0.0))


@dataclass(frozen=True)
class RayPool:
    """The captioners of a job on Ray."""

    num_cpus: float
    """CPUs of each."""
    num_gpus: float
    """GPUs of each."""
    memory: int
    """Memory of each in bytes."""
    min_actors: int
    max_actors: int | None
    """None: as many as fit on the cluster, also on nodes that join later."""

    def fitting(self, resources: Resources) -> int:
        """Returns how many there can be, each on one node: one per CPU or GPU, or fewer if each needs more. At least 1.

        The cluster may be about to start its nodes.
        """
        fitting = sum(int(self._on(node)) for node in resources.nodes)
        return max(1, int(min(fitting, self.max_actors or math.inf)))

    def _on(self, node: Node) -> float:
        in_memory = node.memory / self.memory if self.memory else math.inf
        return min(self._on_cpus(node.num_cpus), self._on_gpus(node.num_gpus), in_memory)

    def _on_cpus(self, num_cpus: float) -> float:
        if not self.num_gpus:
            return num_cpus // max(1.0, self.num_cpus)
        return num_cpus / self.num_cpus if self.num_cpus else math.inf

    def _on_gpus(self, num_gpus: float) -> float:
        if not self.num_gpus:
            return math.inf
        if self.num_gpus < 1:  # a GPU is shared, none spans two
            return num_gpus * math.floor(1.0 / self.num_gpus + _ROUNDING)
        return num_gpus // self.num_gpus


def ray_pool(ray: RayConfig, resources: Resources, memory: int) -> RayPool:
    """Returns the captioners, each with `memory` bytes, of a job that starts with these resources of the cluster."""
    pool = RayPool(ray.num_cpus, _num_gpus(ray, resources), memory, min_actors=1, max_actors=ray.max_actors or None)
    fitting = pool.fitting(resources)
    min_actors = min(ray.min_actors or ray.max_actors or fitting, ray.max_actors or math.inf)
    return replace(pool, min_actors=int(min_actors), max_actors=pool.max_actors or (None if may_grow(ray) else fitting))


def _num_gpus(ray: RayConfig, resources: Resources) -> float:
    return ray.num_gpus if ray.num_gpus >= 0 else float(resources.num_gpus > 0)


def may_grow(ray: RayConfig) -> bool:
    """True for a cluster, False for the Ray that a job starts on this machine."""
    return bool(ray.address or os.environ.get("RAY_ADDRESS"))


def num_threads(local: LocalConfig) -> int:
    """Returns the number of threads of the local runner."""
    return local.num_threads or torch.get_num_threads()


def slots(
    config: CaptioningOptions, captioner: ImageCaptioner, resources: Resources | None
) -> Callable[[], dict[str, float]]:
    """Returns a function that returns the parallelism that each stage has now, by name; a cluster may grow or shrink.

    Without GPUs, the captioners decode, too.
    """
    if not resources:
        threads = num_threads(config.local)
        on_cores = (
            captioner.is_thread_safe and not config.captioner_timeout_s and choose_device(config.device).type == "cpu"
        )
        local = {"read": 1.0, "decode": float(threads), "caption": float(threads if on_cores else 1)}
        return lambda: local
    pool = ray_pool(config.ray, resources, captioner.memory_bytes)

    def on_ray() -> dict[str, float]:
        now = connect.resources()
        captioners = pool.fitting(now)
        return {"read": now.num_cpus, "decode": now.num_cpus if pool.num_gpus else captioners, "caption": captioners}

    return on_ray


def device(requested: str, ray: RayConfig, resources: Resources | None) -> str:
    """Returns the device to load a captioner on; with a GPU, it is never the CPU unless that was requested."""
    if resources and requested == "auto":
        return "cuda" if _num_gpus(ray, resources) else "cpu"
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

    num_gpus = _num_gpus(ray, resources)
    wait_s = GPU_WAIT_S if may_grow(ray) or resources.num_gpus >= num_gpus else 0.0
    return probe_worker_device(chosen, num_gpus=num_gpus, num_cpus=ray.num_cpus, wait_s=wait_s)
