"""Connects this process to Ray. The only caller of `ray.init`."""

from __future__ import annotations

import atexit
import logging
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from cluster.identity import Identity, differences, identity, package_folders

CONNECT_TIMEOUT_S = 10.0
CHECK_TIMEOUT_S = 60.0
"""Seconds that a node may take to report its versions, for which it fetches our code first; slower ones are skipped."""
_NOT_SHIPPED = ["**/__pycache__", "**/*.pyc"]
_SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Environment variable that Ray sets in processes that `ray job submit` starts; Ray ships the code to them itself."""


class Node(NamedTuple):
    """The resources of a node; memory in bytes."""

    num_cpus: float
    num_gpus: float
    memory: float


@dataclass(frozen=True)
class Resources:
    """The nodes of a cluster."""

    nodes: Sequence[Node]

    @property
    def num_cpus(self) -> float:
        """CPUs of all nodes."""
        return sum(node.num_cpus for node in self.nodes)

    @property
    def num_gpus(self) -> float:
        """GPUs of all nodes."""
        return sum(node.num_gpus for node in self.nodes)


class ClusterError(ConnectionError):
    """No cluster answers at an address, or its nodes run other versions or other code than this process."""


def is_expected() -> bool:
    """True if this process is meant to use a cluster: it is connected to one, or RAY_ADDRESS names one."""
    ray = sys.modules.get("ray")
    return bool(os.environ.get("RAY_ADDRESS")) or bool(ray and ray.is_initialized())


def connect(address: str = "", environment: Mapping[str, str] = MappingProxyType({})) -> Resources:
    """Connects to the cluster at `address` or RAY_ADDRESS, or starts Ray on this machine; returns its resources.

    Ships our code to the workers of a cluster, unless `ray job submit` has done so; workers on this machine import it
    in place. Keeps an existing connection. Raises ClusterError if no cluster answers at the address, or if its nodes
    run other versions than this process.

    Args:
        address: HOST:PORT of the cluster.
        environment: environment variables that workers are started with, unless the user has set them.
    """
    import ray

    if not ray.is_initialized():
        logging.getLogger("ray._private.runtime_env.packaging").setLevel(
            logging.ERROR
        )  # warns about the size of the captioner
        address = address or os.environ.get("RAY_ADDRESS", "")
        if not address:
            os.environ.update({**environment, **os.environ})  # of Ray's processes, hence of its workers
        _check_reachable(address)
        try:
            ray.init(
                address=address or "local",  # without an address, Ray would join one that others started here
                runtime_env=_runtime_env(environment) if address else None,
                log_to_driver=bool(address),
                include_dashboard=None if address else False,  # its processes take seconds to start
                logging_level=logging.WARNING,
            )
        except ConnectionError as error:
            raise ClusterError(f"no Ray cluster answers at {address}: {error}") from error
        if address:
            _check_same_code()
        else:
            atexit.register(ray.shutdown)  # Ray's own handler waits first for logs, which we do not show
    return resources()


def resources() -> Resources:
    """Returns the resources that the connected cluster has now."""
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return Resources([Node(*(found.get(name, 0.0) for name in ("CPU", "GPU", "memory"))) for found in alive])


def _runtime_env(environment: Mapping[str, str]) -> dict[str, Any]:
    """Returns the environment of a job's workers. A single one, as workers of different ones are not reused."""
    if _SUBMITTED in os.environ:
        return {"env_vars": {name: value for name, value in environment.items() if name not in os.environ}}
    code = {"py_modules": [str(folder) for folder in package_folders()], "excludes": _NOT_SHIPPED}
    return {**code, "env_vars": dict(environment)}


def _check_reachable(address: str) -> None:
    """Raises ClusterError if nothing listens at the address; Ray itself would retry for minutes."""
    host, separator, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if not separator:
        return  # "auto" or "local", which Ray resolves at once
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        raise ClusterError(f"no Ray cluster answers at {address}: {error}") from error


def _check_same_code() -> None:
    """Raises ClusterError if a node runs other versions or other code than this process."""
    own = identity()
    for node, other in _node_identities():
        if found := differences(own, other):
            raise ClusterError(f"node {node} runs other versions than this process: {'; '.join(found)}")


def _node_identities() -> Iterator[tuple[str, Identity]]:
    """Yields the address and identity of each node, except nodes that leave meanwhile or are slow to answer.

    Raises ClusterError for a node that cannot run our code.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError, RuntimeEnvSetupError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote_identity = ray.remote(num_cpus=0, max_retries=0)(identity)
    answers = {}
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            answers[remote_identity.options(scheduling_strategy=there).remote()] = node["NodeManagerAddress"]
    answered, _ = ray.wait([*answers], num_returns=len(answers), timeout=CHECK_TIMEOUT_S)
    for answer in answered:
        try:
            yield answers[answer], ray.get(answer)
        except (RayTaskError, RuntimeEnvSetupError) as error:
            reason = str(error).strip().rpartition("\n")[2]
            raise ClusterError(f"node {answers[answer]} cannot run our code: {reason}") from error
        except RayError:
            logging.getLogger(__name__).warning("node %s went away", answers[answer])
