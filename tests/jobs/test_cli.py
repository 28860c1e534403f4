import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Run, jpeg

import jobs.verify
from jobs import cli

CHECKOUT = Path(__file__).parents[2]


def test_help_lists_the_verbs(shardtalk: Run) -> None:
    code, said = shardtalk("--help")
    assert code == 0
    for verb in cli.VERBS.values():
        assert verb.summary in said


def test_no_verb_is_a_mistake(shardtalk: Run) -> None:
    code, said = shardtalk()
    assert code == 2 and "usage: shardtalk VERB" in said


def test_an_unknown_verb_names_the_choices(shardtalk: Run) -> None:
    code, said = shardtalk("captoin", "x")
    assert code == 2 and said.count("\n") == 1
    assert "'captoin'" in said and all(name in said for name in cli.VERBS)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help(verb: str, shardtalk: Run) -> None:
    code, said = shardtalk(verb, "--help")
    assert code == 0 and f"usage: shardtalk {verb}" in said


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_refuses_an_unknown_option(verb: str, shardtalk: Run) -> None:
    code, said = shardtalk(verb, "--no_such_option", "1")
    assert code == 2 and said.count("\n") == 1 and said.startswith(f"shardtalk {verb}: error:")


def test_verbs_and_their_help_import_nothing_heavy() -> None:
    code = """
import sys
from jobs import cli
cli.main(["--help"])
try:
    cli.main(["caption", "--help"])
except SystemExit:
    pass
print("heavy:", sorted({"torch", "ray", "pyarrow", "PIL", "pandas"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("heavy: []\n")


@pytest.mark.parametrize("bug", [ZeroDivisionError("a bug"), ValueError("no mistake of the user's")])
def test_a_bug_is_not_swallowed(bug: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(config: object) -> int:
        raise bug

    monkeypatch.setattr(jobs.verify, "run", run)
    with pytest.raises(type(bug), match=str(bug)):
        cli.main(["verify", str(tmp_path)])


def test_an_interrupted_verb_says_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shardtalk: Run) -> None:
    def run(config: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs.verify, "run", run)
    assert shardtalk("verify", tmp_path) == (3, "shardtalk verify: interrupted\n")


def test_modules_are_commands_of_their_own() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobs.verify", "nowhere"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "shardtalk verify: error: nowhere is no output of `shardtalk caption`\n"


@pytest.mark.parametrize(
    ("package", "extra", "arguments"),
    [
        ("matplotlib", "train", ["train", "--data", "data", "--output", "run"]),
        ("webdataset", "train", ["prepare", "captions.json", "--images_root", ".", "--output", "data"]),
        ("pycocoevalcap", "evaluate", ["evaluate", "captions", "--references", "captions.json"]),
    ],
)
def test_a_missing_extra_is_one_line(package: str, extra: str, arguments: list[str], tmp_path: Path) -> None:
    """In a fresh process, where nothing has imported it."""
    (tmp_path / "captions.json").write_text('[{"file_path": "a.jpg", "captions": ["a dog"]}]')
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    code = f"import sys; sys.modules[{package!r}] = None; from jobs.cli import main; sys.exit(main({arguments}))"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    said = f"shardtalk {arguments[0]}: error: {package} is not installed; pip install 'shardtalk[{extra}]'"
    assert (done.returncode, done.stderr.splitlines()) == (2, [said])
