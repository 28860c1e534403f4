"""From a checkpoint of neuraltalk2 to its captions, by the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Run, assert_same, rows_of
from neuraltalk2_files import saved
from PIL import Image
from tolerances import same_log_prob
from torch7_files import CHECKPOINTS, FIXTURES, Obj, dumps

from configs.search import Search
from jobs import cli
from model.captioner import Captioner, checkpoint
from model.neuraltalk2.importer import PREPROCESSING

IMAGES = FIXTURES / "images"


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The captioner of A.t7."""
    directory = tmp_path_factory.mktemp("neuraltalk2") / "captioner"
    assert cli.main(["import-neuraltalk2", str(CHECKPOINTS / "A.t7"), "--output", str(directory)]) == 0
    return directory


@pytest.mark.parametrize("beams", [1, 2, 3])
def test_captions_are_those_of_eval_lua(beams: int, imported: Path, shardtalk: Run, tmp_path: Path) -> None:
    search = ("--search.method", "neuraltalk2", "--search.beam_size", beams)
    usual = ("--output", tmp_path / "out", "--captioner", imported, "--runner", "local", "--batch_size", 5)
    assert shardtalk("caption", IMAGES, *usual, *search)[0] == 0
    theirs = json.loads((FIXTURES / "eval" / f"A.beam{beams}.vis.json").read_text())
    expected = {Path(entry["file_name"]).name: entry["caption"] for entry in theirs}
    assert {row["image_id"]: row["caption"] for row in rows_of(tmp_path / "out")} == expected


def test_log_probabilities_are_the_originals(imported: Path) -> None:
    captioner = Captioner.load(imported, device="cpu")
    images = json.loads((FIXTURES / "eval" / "A_eval.json").read_text())
    files = json.loads((FIXTURES / "images.json").read_text())
    opened = [Image.open(IMAGES / files[image["name"]]["file"]) for image in images]
    search = Search(method="neuraltalk2", beam_size=3)
    for caption, image in zip(captioner.caption(opened, search), images, strict=True):
        best, expected = caption.candidates[0], image["decode"]["3"]
        assert (best.text, best.num_tokens) == (expected["sentence"], sum(token > 0 for token in expected["seq"]))
        assert best.log_prob == same_log_prob(expected["p"], best.num_tokens)


def test_the_normal_search_stays_the_default(imported: Path) -> None:
    captioner = Captioner.load(imported, device="cpu")
    image = Image.open(IMAGES / "img07_rgba.png")
    assert "UNK" in captioner.caption([image], Search(method="neuraltalk2", beam_size=2))[0].text
    assert "UNK" not in captioner.caption([image])[0].text


def test_rotation_in_exif_is_ignored_as_it_was(imported: Path, shardtalk: Run, tmp_path: Path) -> None:
    image = Image.open(IMAGES / "img02_shapes.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, options in (("plain", {}), ("turned", {"exif": exif})):
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / "x.png", **options)
        usual = ("--output", tmp_path / f"{name}-out", "--captioner", imported, "--runner", "local")
        assert shardtalk("caption", tmp_path / name, *usual)[0] == 0
    (plain,), (turned,) = rows_of(tmp_path / "plain-out"), rows_of(tmp_path / "turned-out")
    assert (turned["width"], turned["height"]) == (plain["height"], plain["width"])
    assert_same([plain], [turned | {"width": plain["width"], "height": plain["height"], "shard": plain["shard"]}])


def test_the_captioner_says_where_it_comes_from(imported: Path) -> None:
    config = json.loads((imported / "config.json").read_text())
    assert config["provenance"]["iteration"] == 2500
    assert config["provenance"]["options"]["id"] == "fixtureA"
    assert config["provenance"]["file"]["name"] == "A.t7"
    assert config["scores"] == {"val": {"loss": 2.5, "Bleu_1": 0.4, "CIDEr": 0.1}}
    history = json.loads((imported / "history.json").read_text())
    assert history["loss"] == {"0": 4.1, "25": 3.7, "2500": 2.25}
    assert history["val_scores"] == {"2500": {"Bleu_1": 0.4, "CIDEr": 0.1}}


def test_the_preprocessing_is_in_the_captioner(imported: Path) -> None:
    found = checkpoint.load_preprocessing(imported)
    assert (found.resampling, found.crop_offset, found.loading) == ("torch", 15, "torch")
    assert list(found.mean) == list(PREPROCESSING.mean)


def test_what_was_in_the_file_is_told(shardtalk: Run, tmp_path: Path) -> None:
    code, said = shardtalk("import-neuraltalk2", CHECKPOINTS / "D_cuda.t7", "--output", tmp_path / "out")
    assert code == 0
    for part in (
        "D_cuda.t7: neuraltalk2 at iteration 2,500, 18,575 weights",
        "21 layers, 32 features to 16",
        "1 × 16, captions of up to 16 tokens",
        "40 words, UNK among them",
        "id fixtureD",
        "loss 4.1 at 0 to 2.25 at 2,500, 3 values",
        "loss 2.5, Bleu_1 0.4, CIDEr 0.1",
        "--search.method neuraltalk2",
    ):
        assert part in said


def test_the_same_file_makes_the_same_captioner(imported: Path, shardtalk: Run, tmp_path: Path) -> None:
    code, _ = shardtalk("import-neuraltalk2", CHECKPOINTS / "A_ascii.t7", "--output", tmp_path)
    assert code == 0
    assert checkpoint.fingerprint(tmp_path) == checkpoint.fingerprint(imported)


def test_numbers_that_json_does_not_know_are_null(shardtalk: Run, tmp_path: Path) -> None:
    content = saved(val_loss_history={100: float("nan")}, opt={"grad_clip": float("inf")})
    (tmp_path / "x.t7").write_bytes(dumps(content))
    assert shardtalk("import-neuraltalk2", tmp_path / "x.t7", "--output", tmp_path / "out")[0] == 0

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    config = json.loads((tmp_path / "out" / "config.json").read_text(), parse_constant=refuse)
    assert config["provenance"]["options"] == {"grad_clip": None}
    assert config["scores"] == {"val": {"loss": None}}


def test_a_mistake_is_one_line(shardtalk: Run, tmp_path: Path) -> None:
    (tmp_path / "x.t7").write_bytes(dumps(saved([Obj("nn.SpatialCrossMapLRN", {})])))
    (tmp_path / "cut.t7").write_bytes((CHECKPOINTS / "A.t7").read_bytes()[:5000])
    for name, reason in (
        ("x.t7", "layer 1 of the CNN, nn.SpatialCrossMapLRN, is none of"),
        ("cut.t7", "damaged: at byte"),
        ("none.t7", "cannot be read"),
    ):
        code, said = shardtalk("import-neuraltalk2", tmp_path / name, "--output", tmp_path / "out")
        assert (code, said.count("\n")) == (2, 1)
        assert reason in said
        assert not (tmp_path / "out").exists()


def test_a_folder_with_files_is_left_alone(shardtalk: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes").write_text("mine")
    command = ("import-neuraltalk2", CHECKPOINTS / "A.t7", "--output", tmp_path / "out")
    code, said = shardtalk(*command)
    assert code == 2 and "already has files" in said
    assert shardtalk(*command, "--overwrite")[0] == 0
    assert (tmp_path / "out" / "notes").read_text() == "mine"
    assert shardtalk("import-neuraltalk2", CHECKPOINTS / "A.t7", "--output", CHECKPOINTS / "A.t7")[0] == 2
    assert shardtalk("import-neuraltalk2", "s3://b/x.t7", "--output", tmp_path)[0] == 2
