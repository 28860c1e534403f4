"""A wheel in an environment of its own, used from a project whose modules have the names of our packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import pictures

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.xdist_group("wheel")


@dataclass(frozen=True)
class Project:
    """A user's folder, which comes first on the path, and the environment that it uses."""

    folder: Path
    bin: Path
    cache: Path

    def run(self, program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(self.folder), "XDG_CACHE_HOME": str(self.cache)}
        environment.pop("RAY_ADDRESS", None)
        return subprocess.run(
            [self.bin / program, *map(str, arguments)],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def python(self, code: str) -> str:
        done = self.run("python", "-c", code)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def project(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The environment has the wheel, and reads the other packages where this one has them, but for its `.pth` files."""
    folder, environment = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    own, python = environment / "lib" / Path(sysconfig.get_path("purelib")).parent.name, environment / "bin" / "python"
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--offline", "--no-deps", "--python", python]
    subprocess.run([*install, wheel], check=True)
    (own / "site-packages" / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for name in ("cluster", "jobs", "pipeline"):
        (folder / f"{name}.py").write_text("MINE = True\n")
    for name in ("configs", "model"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("MINE = True\n")
    pictures(folder / "photos", 3)
    return Project(folder, environment / "bin", tmp_path_factory.mktemp("cache"))


def test_the_wheel_owns_one_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name.partition("/")[0] for name in archive.namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"shardtalk"}


def test_the_command_captions_and_verifies(project: Project) -> None:
    done = project.run("shardtalk", "caption", "photos", "--output", "local", "--runner", "local")
    assert done.returncode == 0, done.stderr
    done = project.run("shardtalk", "verify", "local", "photos")
    assert (done.returncode, "3 rows" in done.stdout) == (0, True), done.stdout + done.stderr


def test_workers_of_ray_import_the_installed_packages(project: Project) -> None:
    done = project.run("shardtalk", "caption", "photos", "--output", "ray", "--runner", "ray", "--ray.max_actors", 1)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((project.folder / "ray" / "_manifest.json").read_text())
    assert manifest["totals"] == {"rows": 3, "captions": 3, "errors": 0, "shards": 3}


def test_a_script_has_both_its_own_modules_and_ours(project: Project) -> None:
    code = """
import cluster, configs, jobs, model, pipeline, shardtalk
assert all(module.MINE for module in (cluster, configs, jobs, model, pipeline))
totals = shardtalk.caption("photos", "script", runner="local", search=shardtalk.Search(beam_size=2))["totals"]
print(totals["captions"], shardtalk.read("script").num_rows, shardtalk.verify("script", "photos"))
print({name for name in all_modules if name.startswith(("model.", "pipeline."))})
""".replace("all_modules", "__import__('sys').modules")
    assert project.python(code) == "3 3 []\nset()\n"


@pytest.mark.parametrize(
    "command", ["train", "evaluate", "prepare", "gallery", "status", "captioners", "import-neuraltalk2"]
)
def test_every_command_has_help(command: str, project: Project) -> None:
    done = project.run("python", "-m", "shardtalk", command, "--help")
    assert (done.returncode, done.stderr) == (0, "")


def test_files_of_options_and_captioners_are_in_the_wheel(project: Project) -> None:
    done = project.run("shardtalk", "train", "--config", "train-flickr8k.yaml", "--data", "none", "--output", "run")
    assert (done.returncode, "none" in done.stderr, "--config" in done.stderr) == (2, True, False), done.stderr
    done = project.run("shardtalk", "captioners")
    assert (done.returncode, done.stdout.partition("\n")[0]) == (0, "flickr8k-mobilenet-v2 (default)"), done.stderr


def test_all_modules_can_be_imported(project: Project) -> None:
    code = """
import importlib, pkgutil, shardtalk
for module in pkgutil.walk_packages(shardtalk.__path__, "shardtalk."):
    importlib.import_module(module.name)
print("all")"""
    assert project.python(code) == "all\n"
