"""A run that is stopped and resumed equals an uninterrupted run."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_data_loader import members, shard, tar_bytes
from test_step_monitor import stage

from configs.network import InitialNetwork
from configs.optimizer import Optimizer, Schedule
from configs.train import TrainConfig
from model.errors import OptionError
from model.nn.torchvision_cnns import build_feature_extractor
from pipeline.datasets.prepared_split import read_split
from pipeline.errors import InputError
from pipeline.training.config import Progress
from pipeline.training.distributed import WorldInfo
from pipeline.training.trainer import Trainer

ALONE = WorldInfo(0, 1, torch.device("cpu"))


class Listener:
    """A callback that requests a stop at a given step."""

    def __init__(self, stop_at: int = 0) -> None:
        self.steps, self.stop_at, self.epochs = 0, stop_at, list[dict[str, Any]]()

    @property
    def stop(self) -> bool:
        self.steps += 1
        return self.steps == self.stop_at

    def progress(self, progress: Progress) -> None:
        pass

    def epoch(self, report: Mapping[str, Any]) -> None:
        self.epochs.append(dict(report))


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TrainConfig]:
    """Returns a configuration of three stages on 7 + 3 images, with its own output folder."""
    data = tmp_path_factory.mktemp("data")
    shard(data, "0.tar", tar_bytes(members(0, 1, 2)))
    shard(data, "1.tar", tar_bytes(members(3, 4, 5, 6)))
    (data / "val").mkdir()
    (data / "val" / "0.tar").write_bytes(tar_bytes(members(7, 8, 9)))
    (data / "vocabulary.json").write_text(json.dumps({"words": ["a", "dog", "dogs", "run", "far"]}))
    torch.manual_seed(0)
    torch.save(build_feature_extractor("squeezenet1_1")[0].state_dict(), data / "cnn.pth")

    adam = Optimizer("adam", learning_rate=0.01, weight_decay=0.0)
    usual: dict[str, Any] = {"batch_size": 3, "schedule": Schedule("cosine", warmup_steps=1), "optimizer": adam}
    noisy: dict[str, Any] = {"dropout": 0.3, "ema_decay": 0.5, "scheduled_sampling": 0.2}
    beside: dict[str, Any] = {
        "baseline": "greedy",
        "cross_entropy_weight": 0.1,
        "cached_augmentations": 2,
        "min_crop_scale": 0.5,
    }
    stages = [
        stage(**usual | noisy, name="language", epochs=3, gradient_accumulation_steps=2),
        stage(**usual | noisy, name="finetune", epochs=1, cnn=replace(adam, learning_rate=1e-5), min_crop_scale=0.7),
        stage(**usual, name="rewarded", steps=2, samples_per_image=2, **beside),
    ]

    def recipe(output: Path, **changes: Any) -> TrainConfig:
        network = InitialNetwork(
            cnn="squeezenet1_1", weights=str(data / "cnn.pth"), embedding_size=4, hidden_size=6, image_size=32
        )
        values: dict[str, Any] = {
            **{"data": str(data), "output": str(output), "network": network, "stages": stages, "max_tokens": 4},
            **{"captions_per_image": 2, "beam_size": 2, "selection_metric": "loss", "dtype": "float32"},
            **{"num_decode_threads": 1, "buffer_images": 4, "save_steps": 0, "seed": 5},
        }
        return TrainConfig(**values | changes)

    return recipe


def run(recipe: TrainConfig, listener: Listener | None = None) -> bool:
    train, val = read_split(recipe.data, "train"), read_split(recipe.data, "val", captions=True)
    return Trainer(recipe, train, val, ALONE, listener or Listener()).run()


def left(recipe: TrainConfig) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """Returns the history without speeds, and the weights of best and latest."""
    output = Path(recipe.output)
    history = [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]
    for line in history:
        del line["images_per_s"]
    state = torch.load(output / "latest" / "training.pt", weights_only=True)
    return history, state["position"]["best"] | {"step": torch.tensor(state["position"]["step"])}


@pytest.fixture(scope="module")
def undisturbed(given: Callable[..., TrainConfig], tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    recipe = given(tmp_path_factory.mktemp("undisturbed"))
    assert run(recipe)
    return recipe


def test_every_stage_leaves_its_epochs(undisturbed: TrainConfig) -> None:
    history, _ = left(undisturbed)
    assert [(line["stage"], line["epoch"], line["step"]) for line in history] == [
        *(("language", epoch, 3 * epoch) for epoch in (1, 2, 3)),
        ("finetune", 1, 12),
        ("rewarded", 1, 14),
    ]
    assert not (Path(undisturbed.output) / "features").exists()


@pytest.mark.parametrize("step", [1, 2, 3, 5, 9, 11, 13, 14])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(
    step: int, given: Callable[..., TrainConfig], undisturbed: TrainConfig, tmp_path: Path
) -> None:
    recipe = given(tmp_path)
    stopped = not run(recipe, Listener(stop_at=step))
    assert stopped == (step < 13)  # it is heard one step later
    assert run(recipe)
    history, weights = left(recipe)
    expected_history, expected_weights = left(undisturbed)
    assert history == expected_history
    assert all(torch.equal(weights[name], value) for name, value in expected_weights.items())


@pytest.mark.parametrize("step", [2, 10, 13])
def test_a_run_with_attention_keeps_no_features_and_goes_on_as_well(
    step: int, given: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    whole, stopped = given(tmp_path / "whole"), given(tmp_path / "stopped")
    stages = [replace(one, cached_augmentations=0) for one in whole.stages]
    network = replace(whole.network, attention_heads=2, image_size=80)
    whole, stopped = (replace(recipe, network=network, stages=stages) for recipe in (whole, stopped))
    assert run(whole)
    run(stopped, Listener(stop_at=step))
    assert not (Path(stopped.output) / "features").exists()
    assert run(stopped)
    (history, weights), (expected_history, expected_weights) = left(stopped), left(whole)
    assert history == expected_history
    assert all(torch.equal(weights[name], value) for name, value in expected_weights.items())


def test_a_stage_may_see_larger_images_and_its_captioner_does_so_ever_after(
    given: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    smaller = given(tmp_path / "smaller")
    language, finetune, rewarded = smaller.stages
    larger = replace(
        smaller, output=str(tmp_path / "larger"), stages=[language, replace(finetune, image_size=48), rewarded]
    )
    assert run(smaller)
    stopped = Listener(stop_at=11)  # of nine steps on smaller images, and three on larger
    assert not run(larger, stopped)
    assert side(larger, "latest") == 48
    assert run(larger)
    assert side(larger, "latest") == 32
    best_stage = min(left(larger)[0], key=lambda line: line["val_loss"])["stage"]
    assert side(larger, "best") == (48 if best_stage == "finetune" else 32)
    found, expected = ([line["val_loss"] for line in left(recipe)[0]] for recipe in (larger, smaller))
    assert found[:3] == expected[:3]
    assert found[3] != expected[3]


def side(recipe: TrainConfig, name: str) -> int:
    config = json.loads((Path(recipe.output) / name / "config.json").read_text())
    return int(config["preprocessing"]["image_size"])


def test_a_size_that_the_cnn_cannot_see_is_refused_at_once(given: Callable[..., TrainConfig], tmp_path: Path) -> None:
    recipe = given(tmp_path)
    stages = [*recipe.stages[:2], replace(recipe.stages[2], image_size=8)]
    with pytest.raises(OptionError, match="cannot process images of 8×8 pixels"):
        run(replace(recipe, stages=stages))


class Dying(Listener):
    """A callback that raises at a given step."""

    @property
    def stop(self) -> bool:
        if super().stop:
            raise ZeroDivisionError
        return False


def test_a_run_that_died_goes_on_from_the_last_step_that_was_saved(
    given: Callable[..., TrainConfig], undisturbed: TrainConfig, tmp_path: Path
) -> None:
    recipe, resumed = given(tmp_path, save_steps=2), Listener()
    with pytest.raises(ZeroDivisionError):
        run(recipe, Dying(stop_at=9))
    assert run(recipe, resumed)
    assert resumed.steps == 14 - 8
    assert left(recipe)[0] == left(undisturbed)[0]


def test_a_finished_run_has_nothing_left_to_do(undisturbed: TrainConfig) -> None:
    listener = Listener()
    assert run(undisturbed, listener)
    assert listener.steps == 0


def test_the_last_epochs_are_kept(given: Callable[..., TrainConfig], tmp_path: Path) -> None:
    assert run(given(tmp_path, keep_epochs=2))
    assert sorted(path.name for path in (tmp_path / "epochs").iterdir()) == [
        "000000012-finetune-1",
        "000000014-rewarded-1",
    ]


def test_the_best_is_chosen_by_what_was_asked(given: Callable[..., TrainConfig], tmp_path: Path) -> None:
    for selection_metric, key, best in (("loss", "val_loss", min), ("cider", "cider", max)):
        recipe = given(tmp_path / selection_metric, selection_metric=selection_metric)
        assert run(recipe)
        kept = json.loads((tmp_path / selection_metric / "best" / "config.json").read_text())["scores"]["val"]
        assert kept[key] == best(line[key] for line in left(recipe)[0])


@pytest.mark.parametrize(
    ("workers", "batch_size", "reason"), [(4, 8, "3 to validate on are too few"), (3, 5, "must be at least 6")]
)
def test_each_worker_has_an_image_at_each_step(
    workers: int, batch_size: int, reason: str, given: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    recipe = given(tmp_path)
    recipe = replace(recipe, stages=[replace(one, batch_size=batch_size) for one in recipe.stages])
    train, val = read_split(recipe.data, "train"), read_split(recipe.data, "val", captions=True)
    with pytest.raises(InputError, match=reason):
        Trainer(recipe, train, val, replace(ALONE, count=workers), Listener())
