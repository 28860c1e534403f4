"""The captioners of docs/captioners.md, as they stand there."""

import re
import sys
import textwrap
from pathlib import Path

import pytest
from conftest import Run, pictures, rows_of

PAGE = Path(__file__).parents[2] / "docs" / "captioners.md"
PYTHON = [
    textwrap.dedent(code) for code in re.findall(r"^ *```python\n(.*?)^ *```$", PAGE.read_text(), re.DOTALL | re.M)
]
FIRST, REAL = PYTHON[0], PYTHON[1]
MODEL = '''

def load_my_model(weights, device):
    """Stands for the reader's own."""
    from types import SimpleNamespace

    def describe(images, prompt):
        return [SimpleNamespace(text=f"{prompt} {device}", log_prob=-1.5, num_tokens=4, safe=True) for _ in images]

    return SimpleNamespace(describe=describe)
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with photos."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    pictures(tmp_path / "photos", 3)
    return tmp_path


def test_the_first_captioner(folder: Path, shardtalk: Run) -> None:
    (folder / "brightness.py").write_text(FIRST)
    usual = ("--output", "captions", "--runner", "local", "--captioner", "brightness:Brightness")
    assert shardtalk("caption", "photos/", *usual)[0] == 0
    assert {row["caption"] for row in rows_of("captions")} <= {"a bright photo", "a dark photo"}
    assert shardtalk("verify", "captions", "photos/")[0] == 0


def test_the_real_captioner(folder: Path, shardtalk: Run) -> None:
    (folder / "mine.py").write_text(REAL + MODEL)
    arguments = '{weights: /models/mine, prompt: "What is it?"}'
    usual = ("--output", "captions", "--runner", "local", "--captioner", "mine:Mine", "--captioner_args", arguments)
    code, said = shardtalk("caption", "photos/", *usual, "--device", "cpu")
    assert code == 0, said
    rows = rows_of("captions")
    assert [row["caption"] for row in rows] == ["What is it? cpu"] * 3
    assert [(row["log_prob"], row["num_tokens"], row["safe"]) for row in rows] == [(-1.5, 4, True)] * 3
