"""The deployment files, checked as far as possible without a cloud: they are valid and agree with each other.

Kubernetes itself knows better: `kubectl apply --dry-run=server -f cluster/kuberay.yaml`, where KubeRay is installed.
"""

import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import ray
import yaml
from moto import mock_aws
from packaging.specifiers import SpecifierSet
from ray._private.runtime_env.packaging import get_excludes_from_ignore_files
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config

from configs.caption import CaptionConfig
from configs.loading.parsing import parse
from jobs import __version__
from jobs.cli import COMMANDS

ROOT = Path(__file__).parents[2]
IMAGE = f"registry.example.com/shardtalk:{__version__}"
JOB_CONFIG = "configs/caption-s3.yaml"


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def manifests(name: str) -> dict[str, dict[str, Any]]:
    """Reads the documents of a file by their kind."""
    return {document["kind"]: document for document in yaml.safe_load_all(text(name))}


def aws() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(text("cluster/aws.yaml"))
    return config


def ray_cluster() -> dict[str, Any]:
    spec: dict[str, Any] = manifests("cluster/kuberay.yaml")["RayCluster"]["spec"]
    return spec


def job_config(*options: str) -> CaptionConfig:
    return parse(CaptionConfig, ["--config", str(ROOT / JOB_CONFIG), *options], COMMANDS["caption"])


def pods() -> Iterator[dict[str, Any]]:
    spec = ray_cluster()
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        yield group["template"]["spec"]


@pytest.fixture
def ec2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Mocks AWS with the instance profiles of the file; keys are written to a temporary home folder."""
    (tmp_path / ".ssh").mkdir()
    for name, value in {"HOME": str(tmp_path), "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        iam = boto3.client("iam", region_name="us-west-2")
        for name in ("shardtalk-head", "shardtalk-worker"):
            iam.create_instance_profile(InstanceProfileName=name)
        yield boto3.client("ec2", region_name=aws()["provider"]["region"])


def test_a_submitted_job_ships_code_and_configuration_but_no_data() -> None:
    excludes = get_excludes_from_ignore_files(ROOT, include_gitignore=True)

    def is_shipped(name: str) -> bool:
        """Whether Ray, which begins at the root and enters no folder that is excluded, comes to a file and takes it."""
        path = ROOT / name
        return not any(
            exclude(each) for exclude in excludes for each in (path, *path.parents) if each.is_relative_to(ROOT)
        )

    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    packages = {"cluster", "configs", "jobs", "model", "pipeline", "shardtalk"}
    needed = [name for name in tracked if name.partition("/")[0] in packages]
    assert {name.partition("/")[0] for name in needed} == packages
    assert not [name for name in [*needed, "my.yaml"] if not is_shipped(name)]
    data = ("photos/1.jpg", "shards/0000.tar", "data/train/000000.tar", "captions/part-1.parquet", ".venv/bin/python")
    runs = ("run/best/model.safetensors", "run/latest/training.pt", "run/config.yaml", ".git/config", "site/index.html")
    assert not [name for name in (*data, *runs) if is_shipped(name)]


def test_ray_takes_the_aws_file_by_its_own_schema() -> None:
    config = prepare_config(aws())
    validate_config(config)
    workers = config["available_node_types"]["gpu-spot"]
    assert (workers["min_workers"], workers["max_workers"]) == (0, config["max_workers"])
    commands = [command for key, value in config.items() if key.endswith("commands") for command in value]
    assert commands and not [command for command in commands if "install" in command]


def test_ray_launches_what_the_aws_file_says(ec2: Any) -> None:
    config = bootstrap_aws(AWSNodeProvider.fillout_available_node_types_resources(prepare_config(aws())))
    types = config["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert {name: types["gpu-spot"]["resources"][name] for name in ("CPU", "GPU")} == {"CPU": 8, "GPU": 1}
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    for node_type in types.values():
        provider.create_node(node_type["node_config"], {"ray-node-type": "any"}, 1)
    launched = [one for group in ec2.describe_instances()["Reservations"] for one in group["Instances"]]
    assert {
        (one["InstanceType"], one.get("InstanceLifecycle"), one["ImageId"].partition("/")[0]) for one in launched
    } == {
        ("m7i.xlarge", None, "resolve:ssm:"),
        ("g6.2xlarge", "spot", "resolve:ssm:"),
    }
    profiles = {one["IamInstanceProfile"]["Arn"].rpartition("/")[2] for one in launched}
    assert profiles == {"shardtalk-head", "shardtalk-worker"}


def test_the_token_gets_to_all_nodes_on_aws() -> None:
    assert aws()["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    assert "--env RAY_AUTH_MODE=token" in aws()["docker"]["run_options"]
    assert "HOME=" in text("cluster/Dockerfile")  # where Ray takes ~ to be; else it is /root


def test_the_job_has_the_cluster_of_the_other_manifest() -> None:
    job, cluster = manifests("cluster/kuberay-job.yaml"), manifests("cluster/kuberay.yaml")
    assert job["RayJob"]["spec"]["rayClusterSpec"] == cluster["RayCluster"]["spec"]
    assert job["ServiceAccount"] == cluster["ServiceAccount"]
    assert {document["apiVersion"] for document in (job["RayJob"], cluster["RayCluster"])} == {"ray.io/v1"}


def test_the_job_parses_as_the_submitters_shell_hands_it_on() -> None:
    job = manifests("cluster/kuberay-job.yaml")["RayJob"]["spec"]
    shell = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {job['entrypoint']}"], capture_output=True, text=True, check=True
    )
    words = shell.stdout.split()
    assert words[:5] == ["python", "-m", "jobs.caption", "--config", JOB_CONFIG]
    assert job_config(*words[5:]).inputs == ["s3://my-bucket/images/{0000..9999}.tar"]
    assert job["shutdownAfterJobFinishes"] is True and job["backoffLimit"] > 0


def test_versions_are_those_of_the_lock_file() -> None:
    locked = re.search(r"^ray==(\S+)", text("requirements.lock"), re.MULTILINE)
    assert locked and ray_cluster()["rayVersion"] == locked[1] == ray.__version__


def test_all_nodes_run_the_image_of_this_version() -> None:
    images = {container["image"] for pod in pods() for container in pod["containers"]}
    assert images | {aws()["docker"]["image"]} == {IMAGE}
    assert f"-t {IMAGE} ." in text("cluster/Dockerfile")


def test_the_token_is_on_in_kubernetes() -> None:
    assert ray_cluster()["authOptions"] == {"mode": "token"}


def test_the_workers_ask_for_what_a_captioner_needs() -> None:
    config = job_config()
    [group] = ray_cluster()["workerGroupSpecs"]
    [container] = group["template"]["spec"]["containers"]
    limits, requests = container["resources"]["limits"], container["resources"]["requests"]
    assert limits == requests and float(limits["nvidia.com/gpu"]) == config.ray.num_gpus
    assert group["minReplicas"] == group["replicas"] == 0
    assert group["maxReplicas"] == aws()["max_workers"] == config.ray.max_actors
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in group["template"]["spec"][
        "tolerations"
    ]
    assert ray_cluster()["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}


def test_pods_run_as_the_user_of_the_image() -> None:
    user = re.search(r"^USER (\d+)$", text("cluster/Dockerfile"), re.MULTILINE)
    assert user and {pod["securityContext"]["runAsUser"] for pod in pods()} == {int(user[1])}


def test_the_job_of_s3_says_all_that_it_needs() -> None:
    config = job_config()
    assert config.runner == "ray" and config.ray.min_actors == 1
    assert all(url.startswith("s3://") for url in (*config.inputs, config.output))


def instructions() -> list[list[str]]:
    """Reads the instructions of the Dockerfile, split into words."""
    lines = re.sub(r"\\\n", " ", text("cluster/Dockerfile")).splitlines()
    return [shlex.split(line) for line in lines if line and not line.startswith("#")]


def test_the_image_installs_the_lock_file_with_hashes_by_the_makefiles_uv() -> None:
    [install] = [words for words in instructions() if "--require-hashes" in words]
    uv = re.search(r"^UV_VERSION := (\S+)$", text("Makefile"), re.MULTILINE)
    assert uv and f"uv=={uv[1]}" in install
    assert {"--compile-bytecode", "/tmp/requirements.lock"} <= set(install)


def test_the_image_has_a_python_that_the_project_supports() -> None:
    image = re.search(r"^FROM python:(\d+\.\d+)-slim$", text("cluster/Dockerfile"), re.MULTILINE)
    supported = tomllib.loads(text("pyproject.toml"))["project"]["requires-python"]
    assert image and f"{image[1]}.0" in SpecifierSet(supported)


def test_the_image_gets_what_it_needs_and_nothing_else() -> None:
    copied = {words[-2] for words in instructions() if words[0] == "COPY"}
    packages = {"cluster", "configs", "jobs", "model", "pipeline", "shardtalk"}
    assert copied == packages | {"requirements.lock"} and all((ROOT / name).exists() for name in copied)
    ignored = [line for line in text(".dockerignore").splitlines() if line and not line.startswith("#")]
    assert ignored[0] == "*" and {line.lstrip("!").partition("/")[0] for line in ignored[1:-1]} == copied


def test_no_file_that_deploys_holds_a_secret() -> None:
    names = ["cluster/aws.yaml", "cluster/kuberay.yaml", "cluster/kuberay-job.yaml", "cluster/Dockerfile", JOB_CONFIG]
    found = re.compile(r"AKIA[0-9A-Z]{16}|RAY_AUTH_TOKEN\b|(?i:secret|password)\w*\s*[:=]|BEGIN .*KEY")
    assert {name: hits for name in names if (hits := found.findall(text(name)))} == {}


def told_to(script: list[str], name: str, tmp_path: Path, **environment: str) -> CaptionConfig:
    """Runs a script with a command of this name that notes its arguments; returns the options that they are."""
    notes = tmp_path / "arguments"
    (command := tmp_path / name).write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {notes}\n')
    command.chmod(0o755)
    subprocess.run(script, check=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin", **environment})
    arguments = notes.read_text().splitlines()
    return parse(
        CaptionConfig,
        arguments[arguments.index("caption" if name == "shardtalk" else "jobs.caption") + 1 :],
        COMMANDS["caption"],
    )


def test_an_array_of_slurm_is_all_partitions_of_one_output(tmp_path: Path) -> None:
    script = text("cluster/slurm-array.sbatch")
    array = re.search(r"^#SBATCH --array=1-(\d+)$", script, re.MULTILINE)
    assert array
    for task in ("1", array[1]):
        run = ["bash", str(ROOT / "cluster/slurm-array.sbatch")]
        assert told_to(run, "shardtalk", tmp_path, SLURM_ARRAY_TASK_ID=task).partition == f"{task}/{array[1]}"


def test_an_indexed_job_of_kubernetes_is_all_partitions_of_one_output(tmp_path: Path) -> None:
    job = manifests("cluster/kubernetes-indexed-job.yaml")["Job"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    assert (job["completionMode"], container["image"]) == ("Indexed", IMAGE)
    for index in (0, job["completions"] - 1):
        run = [*container["command"], *container["args"]]
        config = told_to(run, "python", tmp_path, JOB_COMPLETION_INDEX=str(index))
        assert config.partition == f"{index + 1}/{job['completions']}" and len(config.inputs) == 1
