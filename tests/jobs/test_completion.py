"""What bash completes with the script, as bash says it."""

import subprocess
from pathlib import Path

import pytest
from conftest import Run

PRESS_TAB = """
source "$1" && shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
"$(complete -p shardtalk | sed -E 's/.* -F (\\S+) .*/\\1/')"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("completion") / "shardtalk.bash"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["cap"], ["caption", "captioners"]),
        (["caption", "--search.num"], ["--search.num_beam_groups", "--search.num_candidates"]),
        (["caption", "photos", "--runner", ""], ["auto", "local", "ray"]),
        (["train", "--stages.finetune.cnn.beta"], ["--stages.finetune.cnn.beta1", "--stages.finetune.cnn.beta2"]),
        (["caption", "pho"], ["photos"]),
        (["caption", "photos", "--output", "pho"], ["photos"]),
    ],
    ids=["command", "option", "choice", "option of a stage", "file", "file of an option"],
)
def test_bash_completes(words: list[str], expected: list[str], script: Path, tmp_path: Path, shardtalk: Run) -> None:
    if not script.exists():
        code, said = shardtalk("completion", "bash")
        assert code == 0
        script.write_text(said)
    (tmp_path / "photos").mkdir()
    bash = ["bash", "--norc", "-c", PRESS_TAB, "bash", script, "shardtalk", *words]
    done = subprocess.run(bash, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == expected


def test_a_shell_without_a_script_is_a_mistake(shardtalk: Run) -> None:
    code, said = shardtalk("completion", "cmd")
    assert code == 2 and "it must be 'bash', 'zsh' or 'tcsh'" in said and said.count("\n") == 1
