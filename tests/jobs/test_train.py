"""From a JSON file to a captioner that captions."""

import json
from pathlib import Path

import pytest
import torch
from conftest import Run, rows_of
from PIL import Image
from s3_store import Bucket

from model.encoder import headless

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (30, 200, 30)}

RECIPE = """
network: {cnn: squeezenet1_1, image_size: 64, embedding_size: 16, hidden_size: 16}
captions_per_image: 2
stages:
- {name: language, epochs: 30, batch_images: 6, optimizer: {learning_rate: 0.02}}
- {name: finetune, epochs: 1, optimizer: {learning_rate: 1.0e-4}, cnn: {learning_rate: 1.0e-5}, smallest_crop: 0.9}
- {name: self_critical, epochs: 1, optimizer: {learning_rate: 2.0e-4}, dropout: 0.0, samples_per_image: 5}
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plain pictures of three colours; what is said of them is their colour."""
    folder = tmp_path_factory.mktemp("photos")
    entries = []
    for i in range(36):
        name, (r, g, b) = list(COLOURS.items())[i % 3]
        Image.new("RGB", (64, 64), (r, g + i % 5, b - i % 7)).save(folder / f"{i}.jpg")
        captions = [f"a {name} picture", f"all of it is {name}"]
        entries.append({"file_path": f"{i}.jpg", "captions": captions, "split": "val" if i < 6 else "train"})
    (folder / "captions.json").write_text(json.dumps(entries))
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    cnn, _ = headless("squeezenet1_1")
    path = tmp_path_factory.mktemp("weights") / "squeezenet.pth"
    torch.save(cnn.state_dict(), path)
    return path


def test_three_stages_make_a_captioner(
    photos: Path, weights: Path, tmp_path: Path, shardtalk: Run, caption: Run
) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    prepared = ["--images-root", photos, "--output", data, "--num-val", 6, "--word_count_threshold", 0]
    assert shardtalk("prepare", photos / "captions.json", *prepared)[0] == 0
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    where = ["--data", data, "--output", run, "--network.weights", weights]
    code, said = shardtalk("train", "--config", tmp_path / "recipe.yaml", *where)
    assert code == 0, said
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in history] == ["language"] * 30 + ["finetune", "self_critical"]
    assert history[29]["loss"] < 0.7 * history[0]["loss"]

    assert caption(photos, "--captioner", run / "best")[0] == 0
    found = {row["image_id"]: row["caption"] for row in rows_of(tmp_path / "out")}
    assert all(name in found[f"{i}.jpg"] for i, name in enumerate(list(COLOURS) * 2)), found
    best = json.loads((run / "best" / "config.json").read_text())["scores"]["val"]
    assert best["cider"] == pytest.approx(max(line["cider"] for line in history), abs=1e-4)


def test_data_and_captioner_may_lie_in_a_store(  # noqa: PLR0917
    photos: Path, weights: Path, tmp_path: Path, bucket: Bucket, shardtalk: Run, caption: Run
) -> None:
    prepared = ["--images-root", photos, "--output", tmp_path / "data", "--num-val", 6, "--word_count_threshold", 0]
    assert shardtalk("prepare", photos / "captions.json", *prepared)[0] == 0
    files = (path for path in (tmp_path / "data").rglob("*") if path.is_file())
    bucket.put({f"data/{path.relative_to(tmp_path / 'data')}": path.read_bytes() for path in files})
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("epochs: 30", "epochs: 1"))
    where = ["--data", f"{bucket.url}/data", "--output", f"{bucket.url}/run", "--network.weights", weights]
    code, said = shardtalk("train", "--config", tmp_path / "recipe.yaml", *where)
    assert code == 0, said
    assert len(bucket.contents()["run/history.jsonl"].splitlines()) == 3
    assert caption(photos, "--captioner", f"{bucket.url}/run/best")[0] == 0
    assert [row["error_code"] for row in rows_of(tmp_path / "out")] == [None] * 36


@pytest.mark.parametrize("content", [None, b"{", b'{"words": 3}'])
def test_a_vocabulary_that_is_none_is_refused(
    content: bytes | None, photos: Path, tmp_path: Path, shardtalk: Run
) -> None:
    prepared = ["--images-root", photos, "--output", tmp_path / "data", "--num-val", 6]
    assert shardtalk("prepare", photos / "captions.json", *prepared)[0] == 0
    (tmp_path / "data" / "vocabulary.json").unlink()
    if content:
        (tmp_path / "data" / "vocabulary.json").write_bytes(content)
    code, said = shardtalk("train", "--data", tmp_path / "data", "--output", tmp_path / "run")
    assert code == 2 and "vocabulary.json is not a vocabulary" in said and said.count("\n") == 1


def test_data_that_prepare_did_not_write_are_refused(tmp_path: Path, shardtalk: Run) -> None:
    code, said = shardtalk("train", "--data", tmp_path, "--output", tmp_path / "run")
    assert code == 2
    assert "shardtalk prepare" in said and said.count("\n") == 1
