"""`ray job submit` to a cluster of a head and two workers on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import Run, jpeg, pictures, rows_of, tar_bytes
from faults import Survived, is_full
from s3_store import Bucket

from cluster.local import LocalCluster
from model.nn.torchvision_cnns import build_feature_extractor

CHECKOUT = Path(__file__).parents[2]
RAY = Path(sys.executable).with_name("ray")
PHOTOS, COPIES = 5, 60
DEADLINE_S, LOOK_AGAIN_S = 120.0, 0.1
WORKERS = 4 if is_full() else 2
ENDLESS = 10_000
DECODING, CAPTIONER = "MapBatches(CrashIsolated)", "MapWorker(MapBatches(CaptionActor))"


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(workers=WORKERS, cpus_each=1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes a few pictures under many names, whose last part identifies the picture."""
    folder = pictures(tmp_path_factory.mktemp("photos"), 0)
    for i in range(PHOTOS):
        (folder / f"0-{i}.jpg").write_bytes(jpeg(i))
        for copy in range(1, COPIES):
            (folder / f"{copy}-{i}.jpg").hardlink_to(folder / f"0-{i}.jpg")
    return folder


def ray_job(cluster: LocalCluster, *arguments: object) -> subprocess.Popen[str]:
    """Starts `ray job`, whose stdout includes its stderr."""
    command = [RAY, "job", *map(str, arguments)]
    environment = os.environ | cluster.environment
    return subprocess.Popen(
        command, env=environment, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def submit(cluster: LocalCluster, *entrypoint: object, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Starts `ray job submit`, which follows the job's log to its end."""
    return ray_job(cluster, "submit", "--working-dir", ".", *options, "--", *entrypoint)


def ended(job: subprocess.Popen[str]) -> tuple[int, str]:
    """Waits for the end; returns exit code and log."""
    log = job.communicate()[0]
    return job.returncode, log


def await_(job: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """Waits for a condition while the job runs."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert job.poll() is None, job.communicate()[0]
        assert time.monotonic() < deadline
        with contextlib.suppress(subprocess.TimeoutExpired):
            job.wait(LOOK_AGAIN_S)


def caption(photos: Path, output: Path) -> list[object]:
    quick = ["--search.method", "greedy", "--batch_size", 8, "--commit_interval_s", 0]
    return ["python", "-m", "jobs.caption", photos, "--output", output, *quick]


def nodes_with(cluster: LocalCluster, kind: str, name: str, state: str) -> set[str]:
    """Returns the names of the nodes that have "actors" or "tasks" of this name in this state."""
    nodes = {node["node_id"]: node["node_name"] for node in cluster.state("nodes")}
    found = (each for each in cluster.state(kind) if name == each.get("name" if kind == "tasks" else "class_name"))
    return {nodes[each["node_id"]] for each in found if each["state"] == state}


def commits(output: Path) -> int:
    return len(list(output.glob("_commits/*.commit")))


def assert_each_photo_once(photos: Path, output: Path, shardtalk: Run) -> None:
    """Asserts that each photo has one row, with the same caption as its copies."""
    rows = rows_of(output)
    assert len(rows) == PHOTOS * COPIES and not any(row["error_code"] for row in rows)
    assert len({(row["image_id"].rpartition("-")[2], row["caption"]) for row in rows}) == PHOTOS
    assert shardtalk("verify", output, photos)[0] == 0


def test_a_stopped_job_goes_on_when_it_is_submitted_again(
    cluster: LocalCluster, photos: Path, tmp_path: Path, shardtalk: Run
) -> None:
    output = tmp_path / "out"
    first = submit(cluster, *caption(photos, output), options=("--submission-id", "first"))
    await_(first, lambda: commits(output) > 0)
    assert ended(ray_job(cluster, "stop", "first"))[0] == 0
    log = ended(first)[1]
    assert "interrupted" in log and "the same command again does the rest" in log, log
    before = {row["image_id"] for row in rows_of(output)}
    assert 0 < len(before) < PHOTOS * COPIES
    code, log = ended(submit(cluster, *caption(photos, output)))
    assert code == 0, log
    assert f"{PHOTOS * COPIES} captions and 0 errors" in log
    assert f"this run {PHOTOS * COPIES - len(before)} rows" in log
    assert_each_photo_once(photos, output, shardtalk)


def test_a_job_that_fails_says_why_and_with_which_code(cluster: LocalCluster, tmp_path: Path) -> None:
    command = ["python", "-m", "jobs.caption", tmp_path / "nothing", "--output", tmp_path / "out"]
    code, log = ended(submit(cluster, *command))
    assert code == 1 and "failed with exit code 2" in log
    assert f"shardtalk caption: error: {tmp_path}/nothing does not exist" in log


def test_workers_run_the_code_that_was_submitted(cluster: LocalCluster) -> None:
    code = (
        "import os, ray; from cluster.connect import connect; connect(environment={'A': 'a', 'B': 'b'});"
        "where = ray.remote(lambda: (__import__('pipeline').__file__, os.environ['A'], os.environ['B']));"
        "print('at', *ray.get(where.remote()))"
    )
    own = ("--runtime-env-json", json.dumps({"env_vars": {"B": "the user's"}}))
    returned, log = ended(submit(cluster, "python", "-c", code, options=own))
    assert returned == 0, log
    (line,) = (line for line in log.splitlines() if line.startswith("at "))
    assert str(cluster.folder) in line and "runtime_resources/working_dir_files" in line
    assert line.endswith(" a the user's")


def test_a_driver_with_other_versions_is_refused(cluster: LocalCluster, tmp_path: Path, photos: Path) -> None:
    lie = "import cluster.identity as own; own._COMPARED_PACKAGES = ('torch',); own._version = lambda _: '0'"
    run = "import sys; from jobs.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", f"{lie}; {run}", "caption", photos, "--output", tmp_path / "out"],
        env=os.environ | cluster.environment,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "runs other versions than this process: torch is 0 here and" in done.stderr.splitlines()[-1]


EPOCHS = 14
TRAINING = ["--num_workers", 2, "--ray.num_cpus", 0.5, "--ray.num_gpus", 0, "--save_steps", 0, "--seed", 1]


def test_training_that_was_stopped_goes_on_when_it_is_submitted_again(
    cluster: LocalCluster, photos: Path, tmp_path: Path, shardtalk: Run
) -> None:
    entries = [{"file_path": f"{copy}-{i}.jpg", "captions": [f"photo {i}"]} for i in range(PHOTOS) for copy in range(4)]
    (tmp_path / "captions.json").write_text(json.dumps(entries))
    data = ["--images_root", photos, "--output", tmp_path / "data", "--word_count_threshold", 0, "--num_val", 4]
    assert shardtalk("prepare", tmp_path / "captions.json", *data)[0] == 0
    torch.save(build_feature_extractor("squeezenet1_1")[0].state_dict(), tmp_path / "cnn.pth")
    shape = ["--network.cnn", "squeezenet1_1", "--network.weights", tmp_path / "cnn.pth", "--network.image_size", 64]
    run = ["--data", tmp_path / "data", "--output", tmp_path / "run", *shape, *TRAINING]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"stages: [{{name: language, epochs: {EPOCHS}, batch_size: 8}}]")
    command = ["python", "-m", "jobs.train", *run, "--config", recipe]

    first = submit(cluster, *command, options=("--submission-id", "training"))
    history = tmp_path / "run" / "history.jsonl"
    await_(first, lambda: history.exists() and history.read_text().count("\n") > 1)
    assert ended(ray_job(cluster, "stop", "training"))[0] == 0
    log = ended(first)[1]
    assert "stopping" in log and "interrupted: the same command again goes on" in log, log
    before = history.read_text()
    assert before.count("\n") < EPOCHS
    code, log = ended(submit(cluster, *command))
    assert code == 0, log
    assert history.read_text().startswith(before) and history.read_text().count("\n") == EPOCHS
    assert f"the best captioner is {tmp_path}/run/best" in log and f'"epoch": {EPOCHS}' in log


def test_a_job_from_s3_to_s3_by_the_config_that_ships(cluster: LocalCluster, bucket: Bucket, shardtalk: Run) -> None:
    """Runs the command of docs/cluster.md for a store without roles."""
    bucket.put({f"in/{i:04}.tar": tar_bytes({f"k{i}.jpg": jpeg(i), f"l{i}.jpg": b"none"}) for i in range(3)})
    names = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    where = [f"{bucket.url}/in/{{0000..0002}}.tar", "--output", f"{bucket.url}/out"]
    here = ["--ray.num_gpus", 0, "--ray.max_actors", 1]
    config = ["--config", "configs/caption-s3.yaml"]
    job = submit(
        cluster,
        *("python", "-m", "jobs.caption", *config, *where, *here),
        options=("--runtime-env-json", json.dumps({"env_vars": names})),
    )
    code, log = ended(job)
    assert code == 0, log
    assert "3 captions and 3 errors" in log and names["AWS_SECRET_ACCESS_KEY"] not in log
    assert shardtalk("verify", f"{bucket.url}/out", where[0])[0] == 0


def test_captioners_start_on_gpus_that_join_and_outlive_those_that_leave(
    cluster: LocalCluster, photos: Path, tmp_path: Path
) -> None:
    """The nodes claim GPUs that are not there: the captioners compute on the CPU."""
    images, output = pictures(tmp_path / "in", 0), tmp_path / "out"
    for i in range(ENDLESS):  # more than the job captions before it is stopped
        (images / f"{i}.jpg").hardlink_to(photos / f"0-{i % PHOTOS}.jpg")
    first = cluster.add_worker(gpus=1)
    two_on_a_gpu = ("--device", "cpu", "--ray.num_gpus", 0.5, "--ray.num_cpus", 0.4)
    job = submit(cluster, *caption(images, output), *two_on_a_gpu, options=("--submission-id", "growing"))
    await_(job, lambda: commits(output) > 0)
    second = cluster.add_worker(gpus=1)
    await_(job, lambda: nodes_with(cluster, "actors", CAPTIONER, "ALIVE") == {f"w{first}", f"w{second}"})
    await_(job, lambda: nodes_with(cluster, "tasks", f"{CAPTIONER}.submit", "FINISHED") == {f"w{first}", f"w{second}"})
    assert nodes_with(cluster, "tasks", DECODING, "FINISHED") & {"w0", "w1"}
    cluster.kill_worker(first)
    before = commits(output)
    await_(job, lambda: commits(output) > before + 1)
    assert ended(ray_job(cluster, "stop", "growing"))[0] == 0
    log = ended(job)[1]
    assert "interrupted" in log and "the same command again does the rest" in log, log
    assert "autoscaler" not in log  # Ray asks for no more nodes in vain
    cluster.kill_worker(second)


def test_a_job_outlives_all_workers_but_one(
    cluster: LocalCluster, photos: Path, tmp_path: Path, shardtalk: Run, survived: Survived
) -> None:
    """Must be the last test of this cluster, as it kills workers."""
    output = tmp_path / "out"
    job = submit(cluster, *caption(photos, output))
    for i in range(WORKERS - 1):
        await_(job, lambda enough=i + 1: commits(output) >= enough)
        cluster.kill_worker(i)
    code, log = ended(job)
    assert code == 0, log
    assert_each_photo_once(photos, output, shardtalk)
    survived("SIGKILL of a raylet and all its processes", "the job goes on without the node", WORKERS - 1)
