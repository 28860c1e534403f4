"""From a JSON file to a captioner that captions."""

import errno
import itertools
import json
import os
import shutil
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import ray
import torch
import yaml
from conftest import Run, rows_of
from PIL import Image
from s3_store import Bucket

from cluster.connect import Resources
from configs.loading.parsing import parse
from configs.train import TrainConfig
from jobs.cli import COMMANDS, main
from model.nn.torchvision_cnns import build_feature_extractor
from pipeline.training import ray_train
from pipeline.training.step_monitor import StepMonitor

CHECKOUT = Path(__file__).parents[2]
COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (30, 200, 30)}

RECIPE = """
network: {cnn: squeezenet1_1, image_size: 64, embedding_size: 16, hidden_size: 16}
captions_per_image: 2
stages:
- {name: language, epochs: 30, batch_size: 6, optimizer: {learning_rate: 0.02}, dropout: 0.0, input_dropout: 0.0}
- {name: finetune, epochs: 1, optimizer: {learning_rate: 1.0e-4}, cnn: {learning_rate: 1.0e-5}, min_crop_scale: 0.9}
- {name: self_critical, epochs: 1, optimizer: {learning_rate: 2.0e-4}, dropout: 0.0, samples_per_image: 5}
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes plain pictures of three colours, with captions that name the colour."""
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
    cnn, _ = build_feature_extractor("squeezenet1_1")
    path = tmp_path_factory.mktemp("weights") / "squeezenet.pth"
    torch.save(cnn.state_dict(), path)
    return path


@pytest.mark.parametrize("attention_heads", [0, 4])
def test_three_stages_make_a_captioner(  # noqa: PLR0917
    attention_heads: int, photos: Path, weights: Path, tmp_path: Path, shardtalk: Run, caption: Run
) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    prepared = ["--images-root", photos, "--output", data, "--num-val", 6, "--word_count_threshold", 0]
    assert shardtalk("prepare", photos / "captions.json", *prepared)[0] == 0
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    where = ["--data", data, "--output", run, "--network.weights", weights]
    where += ["--network.attention_heads", attention_heads]
    code, said = shardtalk("train", "--config", tmp_path / "recipe.yaml", *where)
    assert code == 0, said
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in history] == ["language"] * 30 + ["finetune", "self_critical"]
    assert history[29]["loss"] < 0.7 * history[0]["loss"]

    assert caption(photos, "--captioner", run / "best")[0] == 0
    found = {row["image_id"]: row["caption"] for row in rows_of(tmp_path / "out")}
    assert all(name in found[f"{i}.jpg"] for i, name in enumerate(list(COLOURS) * 2)), found
    code, said = shardtalk("captioners", run / "best", "--json")
    (best,) = json.loads(said)
    assert best["scores"]["val"]["cider"] == pytest.approx(max(line["cider"] for line in history), abs=1e-4)
    assert best["training_data"] == {"source": str(data), "images": 30, "captions": 60}


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


@pytest.fixture(scope="module")
def data(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared") / "data"
    prepared = ["--images-root", photos, "--output", folder, "--num-val", 6, "--word_count_threshold", 0]
    assert main(["prepare", *map(str, [photos / "captions.json", *prepared])]) == 0
    return folder


@pytest.fixture
def train(data: Path, weights: Path, tmp_path: Path, shardtalk: Run) -> Run:
    """Runs `shardtalk train` with a recipe of two short stages, into `run`."""
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("epochs: 30", "epochs: 3"))
    where = ["--data", data, "--output", tmp_path / "run", "--network.weights", weights]
    return lambda *arguments, **_: shardtalk("train", "--config", tmp_path / "recipe.yaml", *where, *arguments)


def history(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


def test_a_run_leaves_what_one_looks_at(train: Run, tmp_path: Path) -> None:
    code, said = train("--stages.self_critical.epochs", 0)
    assert code == 0 and f"the best captioner is {tmp_path}/run/best" in said
    assert said.count('"stage": "language"') == 3  # a line for each epoch, on stdout
    with Image.open(tmp_path / "run" / "curve.png") as picture:
        assert picture.width > 500
    (events,) = (tmp_path / "run" / "tensorboard").iterdir()
    assert b"step/loss" in events.read_bytes() and b"epoch/cider" in events.read_bytes()
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert [stage["name"] for stage in config["stages"]] == ["language", "finetune", "self_critical"]


def test_a_run_goes_on_with_more_stages_but_not_with_others(train: Run, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("\n".join(RECIPE.replace("epochs: 30", "epochs: 2").splitlines()[:-2]))
    assert train()[0] == 0
    assert len(history(tmp_path / "run")) == 2
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("epochs: 30", "epochs: 2"))
    code, said = train("--num_decode_threads", 2)
    assert code == 0, said
    assert [line["stage"] for line in history(tmp_path / "run")] == ["language"] * 2 + ["finetune", "self_critical"]
    code, said = train("--seed", 7, "--stages.language.dropout", 0.1)
    assert code == 2 and "holds a run with other stages, seed" in said and said.count("\n") == 1


def test_a_state_that_is_damaged_is_named(train: Run, tmp_path: Path) -> None:
    assert train("--stages.self_critical.epochs", 0)[0] == 0
    state = tmp_path / "run" / "latest" / "training.pt"
    state.write_bytes(state.read_bytes()[:-999])
    code, said = train("--stages.self_critical.epochs", 0)
    assert code == 2 and "latest/training.pt is damaged" in said and said.count("\n") == 1


def test_a_run_that_diverges_is_ended_and_says_so(train: Run, tmp_path: Path) -> None:
    code, said = train("--stages.language.optimizer.learning_rate", 1e6, "--stages.language.schedule.warmup_steps", 0)
    assert code == 1
    assert "failed: stage language diverged at step 2" in said and "try a lower learning rate" in said
    assert not (tmp_path / "run" / "best").exists()


def test_a_full_disk_ends_a_run_that_goes_on_when_there_is_space(
    train: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        saved = torch.save

        def full(state: dict[str, Any], file: BinaryIO) -> None:
            if state["position"]["history"].count("\n") == 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            saved(state, file)

        patched.setattr(torch, "save", full)
        code, said = train()
    assert code == 1 and "latest/training.pt cannot be written: No space left on device" in said
    assert len(history(tmp_path / "run")) == 2
    assert train()[0] == 0
    assert [line["epoch"] for line in history(tmp_path / "run")] == [1, 2, 3, 1, 1]


def die_once(arguments: dict[str, Any], mark: Path) -> None:
    """Runs a worker's training loop; the second worker dies at its eighth step, once."""
    steps = itertools.count(1)
    recorded = StepMonitor.record

    def record(self: StepMonitor, sums: torch.Tensor) -> None:
        recorded(self, sums)
        if torch.distributed.get_rank() == 1 and next(steps) == 8 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    StepMonitor.record = record  # type: ignore[method-assign] - of this worker's process
    ray_train.train_loop_per_worker(arguments)


def test_workers_train_what_one_process_does_and_one_may_die(  # noqa: PLR0917
    local_ray: Resources, train: Run, tmp_path: Path, caption: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train("--output", tmp_path / "alone")[0] == 0
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests
    mark = tmp_path / "died"
    monkeypatch.setattr("pipeline.training.ray_train.train_loop_per_worker", partial(die_once, mark=mark))
    code, said = train("--num_workers", 2, "--ray.num_cpus", 0.5)
    assert code == 0, said
    assert mark.exists()
    mine, theirs = history(tmp_path / "run"), history(tmp_path / "alone")
    assert [(line["stage"], line["epoch"], line["step"]) for line in mine] == [
        (line["stage"], line["epoch"], line["step"]) for line in theirs
    ]
    assert mine[2]["loss"] < 0.9 * mine[0]["loss"]
    assert not (tmp_path / "run" / "ray-train").exists()
    assert caption(photos, "--captioner", tmp_path / "run" / "best")[0] == 0


def test_what_ails_a_worker_ends_the_run_with_one_line(
    local_ray: Resources, data: Path, train: Run, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(data, broken)
    (shard,) = (broken / "train").glob("*.tar")
    content = shard.read_bytes()
    shard.write_bytes(content.replace(b"\xff\xda", b"\xff\x00"))  # no picture has a scan
    code, said = train("--data", broken, "--num_workers", 2, "--ray.num_cpus", 0.5)
    assert code == 2, said
    assert "cannot be used" in said.splitlines()[-1] and "run `shardtalk prepare`" in said


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


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--network.attention_heads", 3], "attention_heads is 3; it must be a divisor of embedding_size, 16"),
        (["--network.attention_heads", -1], "attention_heads is -1; it must be at least 0"),
        (["--network.attention_heads", 4, "--network.cnn", "vit_b_16"], "vit_b_16 has none"),
        (
            ["--network.attention_heads", 4, "--stages.language.cached_augmentations", 2],
            "need cached_augmentations 0 with network.attention_heads",
        ),
    ],
)
def test_a_shape_that_there_is_not_is_refused(options: list[object], reason: str, train: Run, tmp_path: Path) -> None:
    code, said = train("--stages.language.min_crop_scale", 0.8, *options)
    assert code == 2 and reason in said.splitlines()[-1]
    assert not (tmp_path / "run" / "latest").exists()


@pytest.mark.parametrize("recipe", ["train-coco-vgg16", "train-coco-resnet101", "train-flickr8k", "train-neuraltalk2"])
def test_the_recipes_that_ship_can_be_followed(
    recipe: str, data: Path, weights: Path, tmp_path: Path, shardtalk: Run
) -> None:
    """Trains on few images with a small CNN; the recipe's own CNN is only built."""
    config = CHECKOUT / "configs" / f"{recipe}.yaml"
    parsed = parse(TrainConfig, ["--config", str(config), "--data", "x", "--output", "y"], COMMANDS["train"])
    with torch.device("meta"):
        assert build_feature_extractor(parsed.network.cnn)[1] > 1000
    quick = [f"--stages.{stage.name}.{option}" for stage in parsed.stages for option in ("steps=1", "batch_size=4")]
    small = ["--network.cnn", "squeezenet1_1", "--network.weights", weights, "--network.image_size", 48]
    where = ["--data", data, "--output", tmp_path / "run", "--num_workers", 0, "--compile_cnn", "false"]
    code, said = shardtalk("train", "--config", config, *where, *small, *quick)
    assert code == 0, said
    assert [line["stage"] for line in history(tmp_path / "run")] == [stage.name for stage in parsed.stages]


def test_training_may_start_from_a_captioner(train: Run, photos: Path, tmp_path: Path, shardtalk: Run) -> None:
    assert train("--stages.finetune.epochs", 0, "--stages.self_critical.epochs", 0)[0] == 0
    first = tmp_path / "first"
    (tmp_path / "run").rename(first)
    start = ["--start_from", first / "best", "--stages.finetune.epochs", 0, "--stages.self_critical.epochs", 0]
    code, said = train(*start, "--network.embedding_size", 8)  # the captioner's counts
    assert code == 0, said
    assert history(tmp_path / "run")[0]["loss"] < history(first)[0]["loss"]
    where = ["--images-root", photos, "--num-val", 6, "--word_count_threshold", 0]
    (tmp_path / "others.json").write_text((photos / "captions.json").read_text().replace("picture", "thing"))
    others, same = (["--data", tmp_path / name, "--output", tmp_path / f"of-{name}"] for name in ("others", "same"))
    assert shardtalk("prepare", tmp_path / "others.json", *where, "--output", tmp_path / "others")[0] == 0
    code, said = train(*start, *others)
    assert code == 2 and "shardtalk prepare --vocabulary" in said and said.count("\n") == 1
    words = ["--vocabulary", first / "best", "--output", tmp_path / "same"]
    assert shardtalk("prepare", tmp_path / "others.json", *where, *words)[0] == 0
    assert train(*start, *same)[0] == 0
