"""The list of captioners: those that ship, and those in folders."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import WORDS, Run

ZOO = Path(__file__).parents[2] / "model" / "zoo"


def listed(shardtalk: Run, *folders: object) -> list[dict[str, Any]]:
    code, said = shardtalk("captioners", *folders, "--json")
    assert code == 0, said
    found: list[dict[str, Any]] = json.loads(said)
    return found


def test_captioners_that_ship_are_described_in_full(shardtalk: Run) -> None:
    found = listed(shardtalk)
    assert [one["name"] for one in found] == sorted(path.name for path in ZOO.iterdir())
    for one in found:
        directory = ZOO / one["name"]
        config, files = json.loads((directory / "config.json").read_text()), list(directory.glob("*.[js]*"))
        assert one["size_bytes"] == sum(file.stat().st_size for file in files) and len(files) == 3
        assert one["num_words"] == len(json.loads((directory / "vocabulary.json").read_text())["words"])
        assert one["scores"] == config["scores"] and 0 < one["scores"]["val"]["cider"] < 2
        assert one["training_data"]["images"] > 0 and one["training_data"]["source"] and one["made_by"]
        assert one["license"] and one["version"]


def test_the_default_captioner_is_marked_and_its_scores_name_their_split(shardtalk: Run) -> None:
    code, said = shardtalk("captioners")
    lines = said.splitlines()
    assert code == 0 and lines[0] == "flickr8k-mobilenet-v2 (default)"
    for name, text in (
        ("CNN", "mobilenet_v2, images of 288×288 pixels"),
        ("training data", "Flickr8k, Karpathy's split: 6,000 images, 30,000 captions"),
        ("val scores", "CIDEr 0.593, BLEU-4 0.238, ROUGE-L 0.479"),
        ("licence", "MIT"),
    ):
        assert f"  {name:14} {text}" in lines


def test_captioners_in_a_folder_are_listed(captioner: Path, tmp_path: Path, shardtalk: Run) -> None:
    for name in ("latest", "best"):
        shutil.copytree(captioner, tmp_path / "run" / name)
    assert [one["name"] for one in listed(shardtalk, tmp_path / "run")] == ["best", "latest"]
    (one,) = listed(shardtalk, captioner)
    assert (one["name"], one["num_words"], one["license"], one["scores"]) == (captioner.name, len(WORDS), "", {})
    code, said = shardtalk("captioners", captioner)
    assert code == 0 and "training data  unknown" in said and "scores" not in said


def test_a_name_among_folders_is_that_of_one_that_ships(captioner: Path, shardtalk: Run) -> None:
    found = listed(shardtalk, captioner, "flickr8k-mobilenet-v2")
    assert [one["name"] for one in found] == [captioner.name, "flickr8k-mobilenet-v2"]


@pytest.mark.parametrize("missing", ["config.json", "vocabulary.json", "model.safetensors"])
def test_no_captioner_is_a_mistake(missing: str, captioner: Path, tmp_path: Path, shardtalk: Run) -> None:
    shutil.copytree(captioner, tmp_path / "part")
    (tmp_path / "part" / missing).unlink()
    code, said = shardtalk("captioners", tmp_path / "part")
    assert code == 2 and said.count("\n") == 1 and f"{tmp_path}/part" in said


def test_metadata_of_other_forms_are_unknown(captioner: Path, tmp_path: Path, shardtalk: Run) -> None:
    shutil.copytree(captioner, tmp_path / "odd")
    config = json.loads((captioner / "config.json").read_text())
    config |= {"scores": [1], "provenance": "somewhere", "license": None}
    (tmp_path / "odd" / "config.json").write_text(json.dumps(config))
    (one,) = listed(shardtalk, tmp_path / "odd")
    assert (one["scores"], one["training_data"], one["made_by"], one["license"]) == ({}, {}, "", "")
