"""The examples of docs/python.md, as they stand there."""

import re
from pathlib import Path

import pytest
from conftest import pictures

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
FOLDER, RAY, DATA_LOADER = re.findall(r"^## .*?\n```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return pictures(tmp_path / "photos", 3)


def run(example: str) -> None:
    exec(compile(example, str(PAGE), "exec"), {"__name__": "__main__"})


def test_a_folder(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(FOLDER)
    assert "{'rows': 3, 'captions': 3, 'errors': 0, 'shards': 3}" in capsys.readouterr().out


@pytest.mark.usefixtures("local_ray")
def test_a_ray_dataset(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(RAY.replace('"photos"', repr(str(photos))))  # workers that run already are in another folder
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(str(photos))]
    assert sorted(Path(line.split()[0]).name for line in lines) == ["0.jpg", "1.jpg", "2.jpg"]
    assert all(len(line.split()) > 2 for line in lines)


def test_a_data_loader(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(DATA_LOADER)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["0.jpg", "1.jpg", "2.jpg"]
    assert all(len(line.split()) > 2 for line in lines)
