"""`--config NAME` for the YAML files that ship."""

from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.loading.bundled_files import find_config

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_file_that_ships_is_found_by_its_name() -> None:
    assert find_config("train-flickr8k.yaml").samefile(CONFIGS / "train-flickr8k.yaml")


def test_a_file_of_that_name_in_the_working_directory_comes_first(working_directory: Path) -> None:
    (working_directory / "caption.yaml").write_text("output: mine\n")
    assert find_config("caption.yaml").read_text() == "output: mine\n"


def test_an_unknown_name_is_answered_by_those_that_ship() -> None:
    with pytest.raises(ConfigError, match=r"--config train\.yaml.* train-flickr8k\.yaml") as raised:
        find_config("train.yaml")
    assert all(file.name in str(raised.value) for file in CONFIGS.glob("*.yaml"))


@pytest.mark.parametrize("name", ["elsewhere/train-flickr8k.yaml", "../train-flickr8k.yaml", "./train-flickr8k.yaml"])
def test_a_path_is_that_file_and_no_other(name: str) -> None:
    assert not find_config(name).exists()
