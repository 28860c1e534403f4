"""The directory of a captioner: it is read as it was written, and anything invalid is refused."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from configs.search import Search
from model.captioner import Captioner, checkpoint
from model.errors import CheckpointError, ModelError
from model.nn.captioning_network import Architecture
from model.vision.preprocessing import Preprocessing
from model.vocabulary import Vocabulary

WORDS = ("a", "dog", "runs", "naïve", "ज्ञान", "UNK")
SEARCH = Search(beam_size=3, num_candidates=2, max_tokens=5)


def saved(directory: Path, dtype: torch.dtype = torch.float32) -> Path:
    torch.manual_seed(3)
    architecture = Architecture(
        vocabulary_size=len(WORDS) + 1, cnn="squeezenet1_1", embedding_size=5, hidden_size=6, layers=2
    )
    checkpoint.save(
        directory,
        architecture.build(),
        architecture=architecture,
        vocabulary=Vocabulary(WORDS),
        preprocessing=Preprocessing(image_size=40, resize="shorter_side", resize_size=44, mean=(0.4, 0.5, 0.6)),
        dtype=dtype,
        provenance={"made": "by a test"},
        scores={"CIDEr": 0.5},
    )
    return directory


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return saved(tmp_path / "captioner")


def edit(directory: Path, section: str, **changes: object) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_text())
    config[section] |= changes
    path.write_text(json.dumps(config))


def pixels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, 40, 40, 3), np.uint8)


def test_a_saved_captioner_is_loaded_as_it_was(directory: Path) -> None:
    network, vocabulary, preprocessing = checkpoint.load(directory)
    torch.manual_seed(3)
    built = Architecture(
        vocabulary_size=len(WORDS) + 1, cnn="squeezenet1_1", embedding_size=5, hidden_size=6, layers=2
    ).build()
    assert not network.training
    assert vocabulary.words == WORDS
    assert (preprocessing.resize, preprocessing.resize_size, list(preprocessing.mean)) == (
        "shorter_side",
        44,
        [0.4, 0.5, 0.6],
    )
    for name, value in built.state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name


def test_a_captioner_saved_again_gives_the_same_captions(directory: Path, tmp_path: Path) -> None:
    network, vocabulary, preprocessing = checkpoint.load(directory)
    config = json.loads((directory / "config.json").read_text())
    checkpoint.save(
        tmp_path / "again",
        network,
        architecture=Architecture(**config["architecture"]),
        vocabulary=vocabulary,
        preprocessing=preprocessing,
        provenance={},
        scores={},
    )
    first, second = Captioner.load(directory, device="cpu"), Captioner.load(tmp_path / "again", device="cpu")
    assert first.caption_pixels(pixels(), SEARCH) == second.caption_pixels(pixels(), SEARCH)


def test_weights_are_stored_in_the_dtype_asked_for(directory: Path, tmp_path: Path) -> None:
    half = saved(tmp_path / "half", torch.float16)
    assert {value.dtype for value in load_file(half / "model.safetensors").values()} == {torch.float16}
    network, *_ = checkpoint.load(half)
    full, *_ = checkpoint.load(directory)
    for name, value in full.state_dict().items():
        assert torch.equal(network.state_dict()[name], value.half().float())


def test_who_may_read_the_words_may_read_the_weights(directory: Path) -> None:
    assert len({(directory / name).stat().st_mode for name in checkpoint.FILES}) == 1


def test_batch_norms_survive(tmp_path: Path) -> None:
    architecture = Architecture(vocabulary_size=3, cnn="resnet18", embedding_size=5, hidden_size=6)
    network = architecture.build()
    network.encoder.cnn.bn1.running_mean.fill_(7.0)  # type: ignore[operator, union-attr]
    checkpoint.save(
        tmp_path,
        network,
        architecture=architecture,
        vocabulary=Vocabulary(("a", "b")),
        preprocessing=Preprocessing(),
        provenance={},
        scores={},
    )
    assert float(checkpoint.load(tmp_path)[0].state_dict()["encoder.cnn.bn1.running_mean"].mean()) == 7.0


def test_a_vocabulary_of_another_size_is_refused(directory: Path) -> None:
    Vocabulary(WORDS[:4]).save(directory / "vocabulary.json")
    with pytest.raises(CheckpointError, match="5 ids and the network 7"):
        checkpoint.load(directory)


@pytest.mark.parametrize("name", ["config.json", "vocabulary.json", "model.safetensors"])
def test_a_missing_file_is_named(directory: Path, name: str) -> None:
    (directory / name).unlink()
    for read in (checkpoint.load, checkpoint.fingerprint):
        with pytest.raises(CheckpointError, match=name):
            read(directory)


@pytest.mark.parametrize("name", ["config.json", "vocabulary.json", "model.safetensors"])
def test_a_cut_file_is_refused(directory: Path, name: str) -> None:
    path = directory / name
    for size in (0, 5, path.stat().st_size // 2, path.stat().st_size - 3):
        os.truncate(path, size)
        with pytest.raises(CheckpointError):
            checkpoint.load(directory)
        path.unlink()
        shutil.copy(saved(directory.parent / "whole") / name, path)


@pytest.mark.parametrize(
    "changes", [{"cnn": "squeezenet1_0"}, {"hidden_size": 7}, {"embedding_size": 4}, {"layers": 1}, {"layers": 3}]
)
def test_weights_of_another_architecture_are_refused(directory: Path, changes: dict[str, object]) -> None:
    edit(directory, "architecture", **changes)
    with pytest.raises(CheckpointError, match="does not match the architecture"):
        checkpoint.load(directory)


@pytest.mark.parametrize("changes", [{"hidden_size": 0}, {"hidden_size": "6"}, {"cnn": "lenet"}, {"heads": 3}])
def test_a_nonsensical_configuration_is_refused(directory: Path, changes: dict[str, object]) -> None:
    edit(directory, "architecture", **changes)
    with pytest.raises(ModelError):
        checkpoint.load(directory)


def test_a_later_format_is_refused(directory: Path) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(CheckpointError, match="format 99"):
        checkpoint.load(directory)


@pytest.mark.parametrize("text", ["[]", "null", '"format"', "{}"])
def test_json_of_another_kind_is_refused(directory: Path, text: str) -> None:
    (directory / "config.json").write_text(text)
    with pytest.raises(CheckpointError):
        checkpoint.load(directory)


def test_an_unknown_name_lists_those_that_ship(tmp_path: Path) -> None:
    shipped = [path.name for path in checkpoint.ZOO.iterdir()] if checkpoint.ZOO.is_dir() else []
    for name in ("nonsense", tmp_path):
        with pytest.raises(CheckpointError) as raised:
            checkpoint.find(name)
        assert all(each in str(raised.value) for each in (str(name), *shipped))


def test_a_directory_is_found_as_it_is(directory: Path) -> None:
    assert checkpoint.find(directory) == directory == checkpoint.find(str(directory))


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


def test_a_pickle_in_the_place_of_weights_is_not_executed(directory: Path, tmp_path: Path) -> None:
    (directory / "model.safetensors").write_bytes(pickle.dumps(Trap(tmp_path / "trace")))
    with pytest.raises(CheckpointError):
        checkpoint.load(directory)
    assert not (tmp_path / "trace").exists()


def test_a_fingerprint_is_that_of_what_decides_the_captions(directory: Path, tmp_path: Path) -> None:
    def changed(name: str) -> Path:
        copy = tmp_path / name
        shutil.copytree(directory, copy)
        return copy

    scored, pixels_, words, weights = (changed(name) for name in ("scored", "pixels", "words", "weights"))
    edit(scored, "scores", CIDEr=0.9)
    edit(scored, "provenance", made="elsewhere")
    config = scored / "config.json"
    config.write_text(json.dumps({"license": "MIT", **json.loads(config.read_text())}))
    edit(pixels_, "preprocessing", resize="stretch")
    Vocabulary(("the", *WORDS[1:])).save(words / "vocabulary.json")
    tensors = load_file(weights / "model.safetensors")
    tensors["decoder.output.bias"][2] += 1e-3
    save_file(tensors, weights / "model.safetensors")
    whole = checkpoint.fingerprint(directory)
    assert checkpoint.fingerprint(scored) == whole
    assert len({whole, *map(checkpoint.fingerprint, (pixels_, words, weights))}) == 4


@pytest.mark.parametrize("shipped", sorted(path for path in checkpoint.ZOO.iterdir() if path.is_dir()), ids=str)
def test_a_captioner_that_ships_names_its_licence(shipped: Path) -> None:
    assert json.loads((shipped / "config.json").read_text())["license"]


def test_preprocessing_is_read_without_the_weights(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    assert checkpoint.load_preprocessing(directory).image_size == 40


def test_a_name_of_the_hugging_face_hub_is_recognised() -> None:
    with pytest.raises(CheckpointError, match="flickr8k-mobilenet-v2; models of the Hugging Face Hub cannot be loaded"):
        checkpoint.find("organisation/model")
    with pytest.raises(CheckpointError, match=r"or one of flickr8k-mobilenet-v2$"):
        checkpoint.find("model")
