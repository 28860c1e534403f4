"""Training data converted from the output of neuraltalk2's prepro.py."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from PIL import Image
from torch7_files import FIXTURES

from model.vocabulary import Vocabulary
from pipeline.datasets.prepared_split import read_split, read_vocabulary
from pipeline.tar.samples import read_samples

h5py = pytest.importorskip("h5py")

CHECKOUT = Path(__file__).parents[3]
ORIGINAL = CHECKOUT.parent / "shared" / "data" / "neuraltalk2" / "prepro" / "thr1_len16.h5"
WORDS = {"1": "dog", "2": "a", "3": "UNK"}
INFOS = [
    {"split": "val", "file_path": "x/v.jpg", "id": 7},
    {"split": "train", "file_path": "x/t.png"},
    {"split": "train"},
]
ARRAYS = {
    "images": np.random.default_rng(0).integers(0, 256, (3, 3, 256, 256), np.uint8),
    "labels": np.array([[2, 1, 0, 0], [2, 3, 1, 2], [1, 0, 0, 0], [3, 3, 3, 0]], np.uint32),
    "label_length": np.array([2, 4, 1, 3], np.uint32),
    "label_start_ix": np.array([1, 3, 4], np.uint32),
    "label_end_ix": np.array([2, 3, 4], np.uint32),
}


def written(folder: Path, document: Any = None, **arrays: Any) -> tuple[Path, Path]:
    """Writes both files, with some arrays replaced; None leaves an array out."""
    with h5py.File(folder / "data.h5", "w") as file:
        for name, values in (ARRAYS | arrays).items():
            if values is not None:
                file[name] = values
    (folder / "data.json").write_text(json.dumps(document or {"ix_to_word": WORDS, "images": INFOS}))
    return folder / "data.json", folder / "data.h5"


def prepare(shardtalk: Run, folder: Path, files: tuple[Path, Path]) -> tuple[int, str]:
    return shardtalk("prepare", files[0], "--h5", files[1], "--output", folder / "out")


def test_words_ids_and_splits_stay(shardtalk: Run, tmp_path: Path) -> None:
    code, said = prepare(shardtalk, tmp_path, written(tmp_path))
    assert code == 0 and "train: 2 images, 2 captions" in said
    assert read_vocabulary(tmp_path / "out").words == ("dog", "a", "UNK")
    val = read_split(tmp_path / "out", "val", captions=True)
    assert (val.image_ids, val.captions) == (("x/v",), (("a dog", "a UNK dog a"),))
    assert val.ids(0) == [[2, 1], [2, 3, 1, 2]]
    train = read_split(tmp_path / "out", "train")
    assert (train.image_ids, train.ids(0), train.ids(1)) == (("x/t", "2"), [[1]], [[3, 3, 3]])
    stats = json.loads((tmp_path / "out" / "stats.json").read_text())
    assert stats["splits"]["val"]["unknown_tokens"] == 1
    assert stats["splits"]["train"]["truncated_captions"] == 0


def test_pixels_stay(shardtalk: Run, tmp_path: Path) -> None:
    assert prepare(shardtalk, tmp_path, written(tmp_path))[0] == 0
    found = []
    for name in ("val", "train"):
        (shard,) = (tmp_path / "out" / name).glob("*.tar")
        with shard.open("rb") as file:
            for sample in read_samples(file, size=shard.stat().st_size, wanted="png".__eq__):
                found.append(np.asarray(Image.open(io.BytesIO(sample.files["png"] or b""))))
    for image, expected in zip(found, ARRAYS["images"], strict=True):
        assert np.array_equal(image.transpose(2, 0, 1), expected)


@pytest.mark.skipif(not ORIGINAL.exists(), reason="needs the file of prepro.py itself")
def test_a_file_of_prepro_py_is_taken_over(shardtalk: Run, tmp_path: Path) -> None:
    words = FIXTURES / "prepro" / "thr1_len16.json"
    assert prepare(shardtalk, tmp_path, (words, ORIGINAL))[0] == 0
    theirs, labels = json.loads(words.read_text()), np.load(FIXTURES / "prepro" / "thr1_len16.npz")
    ids: dict[str, list[list[int]]] = {}
    for split in ("train", "val", "test"):
        for shard in (tmp_path / "out" / split).glob("*.tar"):
            with shard.open("rb") as file:
                for sample in read_samples(file, size=shard.stat().st_size):
                    record = json.loads(sample.files["json"] or b"")
                    ids[record["file_path"]] = record["ids"]
    assert Vocabulary.load(tmp_path / "out" / "vocabulary.json").words[36] == theirs["ix_to_word"]["37"]
    for i, image in enumerate(theirs["images"]):
        rows = labels["labels"][labels["label_start_ix"][i] - 1 : labels["label_end_ix"][i]]
        assert ids[image["file_path"]] == [[word for word in row.tolist() if word] for row in rows]


@pytest.mark.parametrize(
    ("document", "arrays", "reason"),
    [
        ({"images": INFOS}, {}, "lacks 'ix_to_word'"),
        ({"ix_to_word": {"1": "a", "3": "b"}, "images": INFOS}, {}, "lacks 2"),
        ({"ix_to_word": {"1": "a", "2": "a", "3": "b"}, "images": INFOS}, {}, "'a' more than once"),
        ({"ix_to_word": WORDS, "images": INFOS[:2]}, {}, "of different data sets"),
        ({"ix_to_word": WORDS, "images": [*INFOS[:2], {"split": "dev"}]}, {}, "image 2 is {'split': 'dev'}"),
        ({"ix_to_word": WORDS, "images": [*INFOS[:2], 7]}, {}, "image 2 is 7"),
        (["a"], {}, "is not the JSON file"),
        (None, {"labels": None}, "is not the HDF5 file"),
        (None, {"labels": np.zeros(4, np.uint32)}, "see labels"),
        (None, {"images": np.zeros((3, 3, 4, 4), np.float32)}, "see images"),
        (None, {"images": ARRAYS["images"][:2]}, "of different data sets"),
        (None, {"label_start_ix": ARRAYS["label_start_ix"][:2]}, "of different data sets"),
        (None, {"labels": ARRAYS["labels"] + 1}, "no words of"),
        (None, {"label_length": np.array([2, 4, 1, 4])}, "no words of"),
        (None, {"label_end_ix": np.array([2, 2, 4])}, "without captions"),
        (None, {"label_end_ix": np.array([2, 3, 5])}, "has 4 captions"),
        (None, {"label_start_ix": np.array([0, 3, 4])}, "has 4 captions"),
        (None, {"label_length": np.array([2, 4, 1])}, "has 4 captions"),
        (None, {"label_length": np.array([2, 0, 1, 3])}, "captions without words"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    document: Any, arrays: dict[str, Any], reason: str, shardtalk: Run, tmp_path: Path
) -> None:
    code, said = prepare(shardtalk, tmp_path, written(tmp_path, document, **arrays))
    assert (code, said.count("\n")) == (2, 1)
    assert reason in said
    assert not (tmp_path / "out").exists()


def test_files_of_another_kind_are_refused(shardtalk: Run, tmp_path: Path) -> None:
    words, h5 = written(tmp_path)
    for files in ((h5, words), (words, words), (words, tmp_path / "none.h5"), (tmp_path / "none.json", h5)):
        code, said = prepare(shardtalk, tmp_path, files)
        assert (code, said.count("\n")) == (2, 1) and "prepro.py" in said


def test_either_images_or_an_h5_file_is_needed(shardtalk: Run, tmp_path: Path) -> None:
    for options in ((), ("--h5", "x.h5", "--images_root", tmp_path)):
        code, said = shardtalk("prepare", "x.json", "--output", tmp_path / "out", *options)
        assert code == 2 and "--h5 FILE" in said
