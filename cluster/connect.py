"""The only caller of `ray.init`."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cluster.identity import Identity, differences, identity, package_folders

CONNECT_TIMEOUT_S = 10.0
CHECK_TIMEOUT_S = 60.0
"""Of a node to say what it runs; it fetches our code first. One that takes longer is not asked."""
_NOT_SHIPPED = ["**/__pycache__", "**/*.pyc"]
_SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray in the processes that `ray job submit` starts; it ships the code then."""


@dataclass(frozen=True)
class Resources:
    """What the cluster has in all."""

    num_cpus: float
    num_gpus: float


class ClusterError(ConnectionError):
    """There is no cluster where one was said to be, or it runs something else than we do."""


def is_expected() -> bool:
    """Whether this process is meant to use a cluster: one is connected, or RAY_ADDRESS names one."""
    ray = sys.modules.get("ray")
    return bool(os.environ.get("RAY_ADDRESS")) or bool(ray and ray.is_initialized())


def connect(address: str = "") -> Resources:
    """Connects to the cluster at `address` or RAY_ADDRESS, or starts Ray here.

    Our code is shipped to a cluster's workers, unless `ray job submit` has done so; those started here read it where it
    lies. A cluster that this process is connected to already is used as it is. Raises ClusterError if there is none at
    the address, or if its nodes have other versions than this process.
    """
    import ray

    if not ray.is_initialized():
        logging.getLogger("ray._private.runtime_env.packaging").setLevel(logging.ERROR)  # warns of the captioner's size
        address = address or os.environ.get("RAY_ADDRESS", "")
        _refuse_silence(address)
        try:
            ray.init(
                address=address or None,
                runtime_env=_shipped() if address and _SUBMITTED not in os.environ else None,
                log_to_driver=bool(address),
                logging_level=logging.WARNING,
            )
        except ConnectionError as error:
            raise ClusterError(f"no Ray cluster answers at {address}: {error}") from error
        if address:
            _refuse_others()
    found = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return Resources(num_cpus=found.get("CPU", 0.0), num_gpus=found.get("GPU", 0.0))


def _shipped() -> dict[str, Any]:
    return {"py_modules": [str(folder) for folder in package_folders()], "excludes": _NOT_SHIPPED}


def _refuse_silence(address: str) -> None:
    """Raises ClusterError where nobody listens: Ray itself would try for minutes."""
    host, separator, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if not separator:
        return  # "auto", "local": Ray knows at once
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        raise ClusterError(f"no Ray cluster answers at {address}: {error}") from error


def _refuse_others() -> None:
    """Raises ClusterError if a node runs other versions or other code than this process."""
    mine = identity()
    for node, theirs in _identities():
        if found := differences(mine, theirs):
            raise ClusterError(f"node {node} does not run what this process runs: {'; '.join(found)}")


def _identities() -> Iterator[tuple[str, Identity]]:
    """Of every node, by its address; without those that leave meanwhile, or are slow to answer.

    Raises ClusterError for a node that cannot run our code.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError, RuntimeEnvSetupError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = ray.remote(num_cpus=0, max_retries=0)(identity)
    answers = {}
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            answers[asked.options(scheduling_strategy=there).remote()] = node["NodeManagerAddress"]
    answered, _ = ray.wait([*answers], num_returns=len(answers), timeout=CHECK_TIMEOUT_S)
    for answer in answered:
        try:
            yield answers[answer], ray.get(answer)
        except (RayTaskError, RuntimeEnvSetupError) as error:
            reason = str(error).strip().rpartition("\n")[2]
            raise ClusterError(f"node {answers[answer]} cannot run our code: {reason}") from error
        except RayError:
            logging.getLogger(__name__).warning("node %s went away", answers[answer])
