"""Starting Ray, and connecting to a cluster that is not there."""

import os
import socket
from pathlib import Path

import pytest
import ray
from conftest import Run, pictures

from cluster.connect import ClusterError, Resources, connect
from model.device import SINGLE_ARENA


@pytest.fixture
def free_port() -> int:
    """Returns a port without a listener."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
    return port


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "127.0.0.1:{}/x"])
def test_silence_is_an_error_at_once(form: str, free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(ClusterError, match=str(free_port)):
        connect(form.format(free_port))


def test_the_command_says_so_in_one_line(
    free_port: int, tmp_path: Path, caption: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    code, said = caption(pictures(tmp_path / "in", 1), "--runner", "ray", "--ray.address", f"127.0.0.1:{free_port}")
    assert code == 2
    assert said.startswith("shardtalk caption: error: no Ray cluster answers at") and said.count("\n") == 1


def test_all_workers_of_a_ray_that_is_started_have_the_environment(local_ray: Resources) -> None:
    assert ray.get_runtime_context().runtime_env == {}  # one would cost processes of its own
    found = ray.get(ray.remote(lambda: dict(os.environ)).remote())
    assert found.items() >= SINGLE_ARENA.items()
