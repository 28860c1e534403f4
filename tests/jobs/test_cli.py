import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Run, jpeg

import jobs
import jobs.verify
from jobs import cli

CHECKOUT = Path(__file__).parents[2]


def test_help_lists_the_commands(shardtalk: Run) -> None:
    code, said = shardtalk("--help")
    assert code == 0
    for command in cli.COMMANDS.values():
        assert command.summary in said


def test_no_command_is_a_mistake(shardtalk: Run) -> None:
    code, said = shardtalk()
    assert code == 2 and "usage: shardtalk COMMAND" in said


def test_an_unknown_command_names_the_one_that_was_meant(shardtalk: Run) -> None:
    assert shardtalk("captoin", "x") == (2, "shardtalk: error: there is no command 'captoin'; did you mean caption?\n")
    assert "did you mean --version?" in shardtalk("--versio")[1]
    code, said = shardtalk("x")
    assert code == 2 and said.count("\n") == 1 and all(name in said for name in cli.COMMANDS)


def test_the_version_is_told(shardtalk: Run) -> None:
    assert shardtalk("--version") == (0, f"shardtalk {jobs.__version__}\n")


def test_help_is_a_command_too(shardtalk: Run) -> None:
    assert shardtalk("help", "verify") == shardtalk("verify", "--help")
    assert shardtalk("help") == shardtalk("--help")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_describes_all_of_its_options(name: str, shardtalk: Run) -> None:
    code, said = shardtalk(name, "--help-all")
    described = re.findall(r"^  --.*\n      (.*)", said, re.MULTILINE)
    assert code == 0 and len(described) == said.count("\n  --") and all(len(text.split()) > 1 for text in described)


def test_renamed_options_are_answered_by_their_names_now(shardtalk: Run) -> None:
    for command, then, now in (
        ("caption", "search.groups", "search.num_beam_groups"),
        ("train", "stages.finetune.cnn.momentum", "stages.finetune.cnn.beta1"),
        ("prepare", "threads", "num_decode_threads"),
    ):
        assert shardtalk(command, f"--{then}", "2") == (2, f"shardtalk {command}: error: `--{then}` is now `--{now}`\n")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(command: str, shardtalk: Run) -> None:
    code, said = shardtalk(command, "--help")
    assert code == 0 and f"usage: shardtalk {command}" in said


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_refuses_an_unknown_option(command: str, shardtalk: Run) -> None:
    code, said = shardtalk(command, "--no_such_option", "1")
    assert code == 2 and said.count("\n") == 1 and said.startswith(f"shardtalk {command}: error:")


def test_commands_and_their_help_import_nothing_heavy() -> None:
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


def test_an_interrupted_command_says_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shardtalk: Run) -> None:
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
    """Runs in a fresh process, which has not imported the package."""
    (tmp_path / "captions.json").write_text('[{"file_path": "a.jpg", "captions": ["a dog"]}]')
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    code = f"import sys; sys.modules[{package!r}] = None; from jobs.cli import main; sys.exit(main({arguments}))"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    said = f"shardtalk {arguments[0]}: error: {package} is not installed; pip install 'shardtalk[{extra}]'"
    assert (done.returncode, done.stderr.splitlines()) == (2, [said])
