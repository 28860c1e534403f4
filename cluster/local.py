"""A Ray cluster of several nodes on this machine (Linux), for tests and to try out the death of a node.

    eval "$(python -m cluster.local start --workers 2)"     # prints the environment that reaches it
    ray job submit --working-dir . -- python -m jobs.caption ~/Pictures --output /tmp/captions
    python -m cluster.local stop

Each node is a raylet with its own loopback address, folder and process session, so ports do not clash, and killing the
session is like losing a machine. Only processes started here are ever ended, unlike with `ray stop`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.processes import kill_session, start_time

START_TIMEOUT_S = 120.0
POLL_S = 0.2
STATE_LIMIT = 10_000
"""Maximum number of actors or tasks that Ray's dashboard lists."""
LEADERS = "leaders.json"


class LocalCluster:
    """A head node without CPUs, named `head`, and workers `w0`, `w1`, …, each a `ray start` process.

    with LocalCluster(workers=2, cpus_each=1) as cluster:
        subprocess.run(["ray", "job", "submit", …], env=os.environ | cluster.environment)
        cluster.kill_worker(0)
    """

    def __init__(self, workers: int = 2, cpus_each: int = 1, store_bytes: int = 256 << 20) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="shardtalk-", dir="/tmp"))  # socket paths must be short
        self.workers = workers
        self._cpus_each = cpus_each
        self._store_bytes = store_bytes
        # a random subnet of 127.0.0.0/8 per cluster, so that several can run side by side
        self._network = f"127.{random.randint(1, 254)}.{random.randint(0, 254)}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        token = self.folder / "token"
        token.write_text(secrets.token_hex(32), encoding="ascii")
        token.chmod(0o600)
        self._auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}

    def __enter__(self) -> LocalCluster:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """HOST:PORT for `ray.init`, which Ray writes into the head's folder."""
        return (self.folder / "head" / "ray_current_cluster").read_text(encoding="ascii").strip()

    @property
    def dashboard(self) -> str:
        """URL of the dashboard, for `ray job submit`."""
        return f"http://{self._network}.1:8265"

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables with which a child process reaches the cluster; Ray reads them on import."""
        return self._auth | {"RAY_ADDRESS": self.address, "RAY_API_SERVER_ADDRESS": self.dashboard}

    def start(self) -> LocalCluster:
        """Starts the nodes, in 10 to 20 seconds; raises RuntimeError with Ray's log if one does not come up."""
        try:
            # these ports bind beyond the subnet (all addresses; 127.0.0.1), so neither may be the default
            ports = ["--port=0", f"--ray-client-server-port={_free_port()}"]
            dashboard = [f"--dashboard-host={self._network}.1", "--dashboard-port=8265"]
            self._launch("head", 1, 0, "--head", *ports, *dashboard)
            self._wait((self.folder / "head" / "ray_current_cluster").exists)
            for i in range(self.workers):
                self._launch(f"w{i}", i + 2, self._cpus_each, f"--address={self.address}")
            self.wait_for({"head", *(f"w{i}" for i in range(self.workers))})
        except BaseException:
            self.stop()
            raise
        return self

    def add_worker(self, *, cpus: int = 1, gpus: int = 0) -> int:
        """Starts another worker, which joins the cluster in some seconds; returns its number.

        Args:
            gpus: GPUs that it claims to have; there need be none.
        """
        number = self.workers
        self._launch(f"w{number}", number + 2, cpus, f"--address={self.address}", num_gpus=gpus)
        self.workers += 1
        return number

    def _launch(self, name: str, host: int, num_cpus: int, *options: str, num_gpus: int = 0) -> None:
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *options),
            *(f"--node-ip-address={self._network}.{host}", f"--node-name={name}", f"--num-cpus={num_cpus}"),
            *(f"--num-gpus={num_gpus}", f"--object-store-memory={self._store_bytes}"),
            f"--temp-dir={self.folder / name}",
            # any free port; by default, nodes would hand out the same ones, and only one would get a job agent
            *("--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"),
        ]
        inherited = {key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", "RAY_AUTH_TOKEN")}
        with (self.folder / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                command,
                env=inherited
                | self._auth
                | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_JOB_STOP_WAIT_TIME_S": "60", "PATH": _path_with_this_python()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started = {pid: start_time(pid) for pid in self.leaders().values()}
        (self.folder / LEADERS).write_text(json.dumps(started), encoding="ascii")

    def leaders(self) -> dict[str, int]:
        """Returns the session leader's process number of each node, by node name."""
        return {name: process.pid for name, process in self._processes.items()}

    def alive(self) -> dict[str, dict[str, float]]:
        """Returns the resources of nodes that the head considers alive, by name; it may notice a death 20 s late."""
        nodes = self.state("nodes")
        return {node["node_name"]: node["resources_total"] for node in nodes if node["state"] == "ALIVE"}

    def state(self, kind: str) -> list[dict[str, Any]]:
        """Returns what the head knows of its "nodes", "actors" or "tasks"; [] if it does not answer yet."""
        token = Path(self._auth["RAY_AUTH_TOKEN_PATH"]).read_text(encoding="ascii")
        url = f"{self.dashboard}/api/v0/{kind}?limit={STATE_LIMIT}"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                found: list[dict[str, Any]] = json.load(response)["data"]["result"]["result"]
        except (urllib.error.URLError, TimeoutError):
            return []
        return found

    def wait_for(self, names: set[str], timeout_s: float = START_TIMEOUT_S) -> None:
        """Waits until exactly these nodes are alive; raises RuntimeError after `timeout_s`."""
        self._wait(lambda: set(self.alive()) == names, timeout_s)

    def _wait(self, condition: Callable[[], bool], timeout_s: float = START_TIMEOUT_S) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            ended = [name for name, process in self._processes.items() if process.poll() is not None]
            if ended or time.monotonic() > end:
                logs = "".join(f"\n--- {name}\n{self._log(name)}" for name in ended or self._processes)
                raise RuntimeError(f"the local cluster did not reach the expected state{logs}")
            time.sleep(POLL_S)

    def _log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]

    def kill_worker(self, i: int) -> None:
        """Sends SIGKILL to the raylet of worker `i` and all its descendants, as if its machine were lost."""
        process = self._processes.pop(f"w{i}")
        kill_session(process.pid)
        process.wait()

    def stop(self) -> None:
        """Kills the remaining processes of the cluster and removes its folder."""
        stop(self.folder)
        for process in self._processes.values():
            process.wait()
        self._processes.clear()


def stop(folder: Path) -> None:
    """Stops the cluster in a folder, which another process may have started."""
    try:
        leaders: dict[str, str] = json.loads((folder / LEADERS).read_text(encoding="ascii"))
    except FileNotFoundError:
        leaders = {}
    for pid, started in leaders.items():
        if start_time(int(pid)) in (started, ""):  # otherwise the number belongs to another process by now
            kill_session(int(pid))
    shutil.rmtree(folder, ignore_errors=True)


def _path_with_this_python() -> str:
    """Returns PATH with this Python's folder first, so that a job's `python` is this one."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
    return port


def main(argv: list[str] | None = None) -> int:
    """Runs `start`, which prints shell commands that set the environment, or `stop`; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.local", description=(__doc__ or "").partition("\n")[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    start_parser = commands.add_parser("start", help="start a cluster and print the environment that reaches it")
    start_parser.add_argument("--workers", type=int, default=2)
    start_parser.add_argument("--cpus", type=int, default=1, help="CPUs of each worker")
    stop_parser = commands.add_parser("stop", help="stop the cluster")
    stop_parser.add_argument("folder", nargs="?", default=os.environ.get("SHARDTALK_CLUSTER"))
    arguments = parser.parse_args(argv)
    if arguments.command == "stop":
        if not arguments.folder:
            stop_parser.error("give the cluster's folder, or set SHARDTALK_CLUSTER as `start` printed it")
        stop(Path(arguments.folder))
        return 0
    cluster = LocalCluster(arguments.workers, arguments.cpus).start()
    for name, value in (cluster.environment | {"SHARDTALK_CLUSTER": str(cluster.folder)}).items():
        sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
