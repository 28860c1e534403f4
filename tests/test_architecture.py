"""The architecture: imports among packages, and the modules that a process loads."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"cluster", "configs", "jobs", "model", "pipeline", "shardtalk"}
MAY_IMPORT = {
    "cluster": set(),
    "configs": set(),
    "model": {"configs"},
    "pipeline": {"configs", "model"},
    "jobs": {"cluster", "configs", "model", "pipeline"},
    "shardtalk": {"cluster", "configs", "jobs", "model", "pipeline"},
}
# Sub-packages: each may import those before it, and all may import what is beside them, `pipeline.errors` say.
LAYERS = {
    "configs": ["loading"],
    "model": ["vision", "nn", "decoding", "captioner", "training", "neuraltalk2"],
    "pipeline": [
        "storage",
        "images",
        "tar",
        "parquet",
        "readers",
        "inputs",
        "datasets",
        "output",
        "results",
        "exports",
        "verification",
        "evaluation",
        "captioners",
        "inference",
        "training",
    ],
}
NEVER_IMPORTS = {"model": {"ray", "pyarrow"}, "cluster": {"torch"}}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Returns the top-level names of all imports of a module, late ones included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def imported_modules(path: Path) -> set[str]:
    """Returns the full names of all modules in `from … import …` statements, late ones included."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)]
    return {node.module or "" for node in nodes} | {
        f"{node.module}.{each.name}" for node in nodes for each in node.names
    }


def loaded_after(code: str) -> set[str]:
    """Returns the top-level modules that are loaded in a fresh process after `code`."""
    script = f"{code}\nimport sys; sys.stderr.write(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_imports_point_one_way(package: str) -> None:
    forbidden = (PACKAGES - {package} - MAY_IMPORT[package]) | NEVER_IMPORTS.get(package, set())
    assert {path.name: names for path in modules(package) if (names := imported(path) & forbidden)} == {}


@pytest.mark.parametrize("package", sorted(LAYERS))
def test_imports_among_sub_packages_point_one_way(package: str) -> None:
    assert {path.parent.name for path in (ROOT / package).glob("*/__init__.py")} == set(LAYERS[package])
    for path in modules(package):
        layer = path.relative_to(ROOT / package).parts[0]
        above = LAYERS[package][LAYERS[package].index(layer) + 1 :] if layer in LAYERS[package] else LAYERS[package]
        forbidden = tuple(f"{package}.{name}." for name in above)
        assert not [name for name in imported_modules(path) if f"{name}.".startswith(forbidden)], path


@pytest.mark.parametrize("package", sorted(LAYERS))
def test_a_package_can_be_looked_over(package: str) -> None:
    for layer in LAYERS[package]:
        assert 3 <= len([path for path in (ROOT / package / layer).glob("*.py") if path.name != "__init__.py"]) <= 12


def test_the_model_loads_neither_ray_nor_pyarrow() -> None:
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules("model")]
    loaded = loaded_after(f"import {', '.join(names)}")
    assert "torch" in loaded
    assert not loaded & {"ray", "pyarrow", "pipeline", "jobs"}


def test_the_public_package_is_imported_in_no_time() -> None:
    loaded = loaded_after("import shardtalk; dir(shardtalk)")
    assert not loaded & {"torch", "ray", "pyarrow", "PIL", "numpy", "pandas", "boto3"}


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_no_string_names_a_module(package: str) -> None:
    """In a wheel it would name another one: `hatch_build.py` adapts import statements only."""
    for path in modules(package):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
                first, dot, rest = node.value.partition(".")
                named = ROOT / first / re.split(r"\W", rest)[0]
                is_module = first in PACKAGES and dot and (named.is_dir() or named.with_suffix(".py").is_file())
                assert not is_module, f"{path}:{node.lineno}: {node.value}"


@pytest.mark.parametrize("arguments", [["--help"], ["nonsense"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    loaded = loaded_after(f"from jobs.cli import main; main({arguments})")
    assert not loaded & {"torch", "ray", "pyarrow", "PIL", "numpy", "pandas", "boto3"}


def test_captioning_needs_no_extra() -> None:
    commands = "jobs.caption, jobs.verify, jobs.status, jobs.gallery, jobs.export, jobs.import_neuraltalk2"
    code = f"import {commands}, model.captioner"
    loaded = loaded_after(f"{code}, pipeline.inference.ray_runner, pipeline.inference.local_runner")
    assert "ray" in loaded
    extras = {"matplotlib", "pycocoevalcap", "tensorboardX", "webdataset", "h5py", "moto", "skimage", "transformers"}
    assert not loaded & extras


def test_the_captioner_that_ships_needs_neither_torchvision_nor_the_compiler() -> None:
    loaded = loaded_after("from model.captioner import Captioner; Captioner.load('flickr8k-mobilenet-v2')")
    assert "torch" in loaded and not loaded & {"torchvision", "sympy"}


def test_what_lies_on_this_machine_is_read_and_written_without_boto3(tmp_path: Path) -> None:
    code = f"""import jobs.caption, pipeline.inference.local_runner
from pipeline.storage.folder import Folder
folder = Folder({str(tmp_path)!r})
folder.create("a", b"x")
folder.replace("a", folder.read("a"), folder.version("a"))
assert folder.names() == ["a"]"""
    loaded = loaded_after(code)
    assert "pyarrow" in loaded and not loaded & {"boto3", "botocore"}


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_packages_are_this_checkouts_own(package: str) -> None:
    assert set(packages_distributions().get(package, ["shardtalk"])) == {"shardtalk"}
    code = f"import {package}, sys; sys.exit(0 if {package}.__path__[0] == {str(ROOT / package)!r} else 1)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_only_the_cluster_package_starts_ray() -> None:
    callers = {
        path.relative_to(ROOT).parts[0]
        for package in PACKAGES
        for path in modules(package)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "ray.init"
    }
    assert callers == {"cluster"}
