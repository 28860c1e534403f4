"""A real cluster of three nodes on this machine."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.local import LocalCluster, main
from cluster.processes import processes_of


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(workers=2, cpus_each=3) as running:
        yield running


def ray(cluster: LocalCluster, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The `ray` command, as a user runs it."""
    return subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", *arguments],
        env=os.environ | cluster.environment | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_workers_have_the_cpus_and_the_head_has_none(cluster: LocalCluster) -> None:
    assert {name: found.get("CPU", 0) for name, found in cluster.alive().items()} == {"head": 0, "w0": 3, "w1": 3}


def test_who_has_another_token_is_refused(cluster: LocalCluster) -> None:
    done = ray(cluster, "job", "list", RAY_AUTH_TOKEN="another")
    assert done.returncode != 0 and "token" in done.stderr


def test_a_killed_worker_is_gone_and_stopping_leaves_nothing(cluster: LocalCluster) -> None:
    leaders = cluster.leaders()
    assert all(len(list(processes_of(pid))) > 1 for pid in leaders.values())
    cluster.kill_worker(0)
    assert list(processes_of(leaders["w0"])) == []
    cluster.wait_for({"head", "w1"})
    cluster.stop()
    assert [pid for leader in leaders.values() for pid in processes_of(leader)] == []
    assert not cluster.folder.exists()


def test_stopping_spares_a_process_that_got_the_number_of_another(tmp_path: Path) -> None:
    bystander = subprocess.Popen(["sleep", "60"], start_new_session=True)
    folder = tmp_path / "cluster"
    folder.mkdir()
    (folder / "leaders.json").write_text(f'{{"{bystander.pid}": "1"}}', encoding="ascii")
    assert main(["stop", str(folder)]) == 0
    assert bystander.poll() is None and not folder.exists()
    bystander.kill()
    bystander.wait()
