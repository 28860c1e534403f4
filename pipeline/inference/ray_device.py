"""Determines on which device a captioner would run on a Ray worker, before a job begins."""

from __future__ import annotations

import socket

import ray
from ray.exceptions import RayTaskError

from model.device import choose_device, describe_device
from model.errors import OptionError


def probe_worker_device(device: str, *, num_gpus: float, num_cpus: float, wait_s: float) -> str:
    """Returns the device of a worker with these resources. Raises OptionError if there is no such worker or device.

    Args:
        device: name of the device, as for `choose_device`.
        num_gpus, num_cpus: resources of the worker.
        wait_s: maximum time to wait for a worker, in seconds.
    """
    asked = f"{num_gpus:g} GPUs for each captioner"
    instead = "give --ray.num_gpus 0 to caption on CPUs"
    answer = ray.remote(_probe_device).options(num_cpus=num_cpus, num_gpus=num_gpus, max_retries=2).remote(device)
    ready, _ = ray.wait([answer], timeout=wait_s)
    if not ready:
        ray.cancel(answer)
        found = ray.cluster_resources().get("GPU", 0.0)  # type: ignore[no-untyped-call]
        raise OptionError(f"{asked} were asked for, and the cluster has {found:g} in all; {instead}")
    try:
        name, problem = ray.get(answer)
    except RayTaskError as error:
        raise OptionError(f"the device of a worker with {asked} cannot be determined: {error.cause}") from error
    if problem:
        raise OptionError(f"{asked} were asked for, and on {name} {problem}; {instead}")
    return str(name)


def _probe_device(device: str) -> tuple[str, str]:
    """Returns the device and an empty text, or the host name and the problem there."""
    import torch

    try:
        return describe_device(choose_device(device)), ""
    except OptionError:
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        return socket.gethostname(), f"PyTorch {torch.__version__}, {built}, finds no device {device}"
