"""The only caller of `ray.init`."""

from __future__ import annotations

import logging
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
CONNECT_TIMEOUT_S = 10.0
_NOT_SHIPPED = [".git", ".venv", "demo", "runs", "tests", "docs", "**/__pycache__"]


@dataclass(frozen=True)
class Resources:
    """What the cluster has in all."""

    num_cpus: float
    num_gpus: float


class ClusterError(ConnectionError):
    """There is no cluster where one was said to be."""


def is_expected() -> bool:
    """Whether this process is meant to use a cluster: one is connected, or RAY_ADDRESS names one."""
    ray = sys.modules.get("ray")
    return bool(os.environ.get("RAY_ADDRESS")) or bool(ray and ray.is_initialized())


def connect(address: str = "") -> Resources:
    """Connects to the cluster at `address` or RAY_ADDRESS, or starts Ray here.

    The checkout is shipped to a cluster's workers; those started here read it where it lies. A cluster that this
    process is connected to already is used as it is. Raises ClusterError if there is none at the address.
    """
    import ray

    if not ray.is_initialized():
        address = address or os.environ.get("RAY_ADDRESS", "")
        _refuse_silence(address)
        try:
            ray.init(
                address=address or None,
                runtime_env={"working_dir": str(CHECKOUT), "excludes": _NOT_SHIPPED} if address else None,
                log_to_driver=bool(address),
                logging_level=logging.WARNING,
            )
        except ConnectionError as error:
            raise ClusterError(f"no Ray cluster answers at {address}: {error}") from error
    found = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return Resources(num_cpus=found.get("CPU", 0.0), num_gpus=found.get("GPU", 0.0))


def _refuse_silence(address: str) -> None:
    """Raises ClusterError where nobody listens: Ray itself would try for minutes."""
    host, separator, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if not separator:
        return  # "auto", "local": Ray knows at once
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        raise ClusterError(f"no Ray cluster answers at {address}: {error}") from error
