"""The rows on training. As in `rows`, each side runs in a process of its own, alternating with the other."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.rows import Bench, Result
from model.nn.torchvision_cnns import build_feature_extractor

WORDS, CAPTIONS, VALIDATED = 2_000, 5, 16
CORES = os.cpu_count() or 1


def data(bench: Bench) -> Path:
    """Makes prepared shards of 640 pictures of 224×224 with synthetic captions, and random CNN weights."""
    folder = bench.scratch / "training"
    if folder.exists():
        return folder
    pictures = bench.folder("captioned", 640, width=224, height=224)
    draw = random.Random(0)
    entries = [
        {
            "file_path": path.name,
            "split": "val" if i < VALIDATED else "train",
            "captions": [" ".join(f"w{int(WORDS * draw.random() ** 3)}" for _ in range(11)) for _ in range(CAPTIONS)],
        }
        for i, path in enumerate(sorted(pictures.iterdir()))
    ]
    (bench.scratch / "captions.json").write_text(json.dumps(entries))
    where = ["--images_root", pictures, "--output", folder, "--word_count_threshold", 0]
    bench.python("-m", "jobs.prepare", bench.scratch / "captions.json", *where)
    torch.save(build_feature_extractor("mobilenet_v2")[0].state_dict(), bench.scratch / "cnn.pth")
    return folder


def trained(bench: Bench, stage: dict[str, Any], *options: object) -> float:
    """Trains a stage; returns images/s of its second epoch, without validation."""
    output = bench.scratch / "run"
    shutil.rmtree(output, ignore_errors=True)
    recipe = bench.scratch / "recipe.yaml"
    recipe.write_text(json.dumps({"stages": [{"name": "measured", "epochs": 2, **stage}]}))
    weights = ["--network.weights", bench.scratch / "cnn.pth"]
    bench.python(
        *("-m", "jobs.train", "--data", data(bench), "--output", output, *weights, "--config", recipe),
        *("--save_steps", 0, *options),
    )
    return float(json.loads((output / "history.jsonl").read_text().splitlines()[1])["images_per_s"])


FINETUNING = {"cnn": {"learning_rate": 1e-4}, "optimizer": {"learning_rate": 1e-4}, "min_crop_scale": 0.8}
ON_FEATURES = {"optimizer": {"learning_rate": 1e-4}}


def finetuning(bench: Bench) -> Result:
    """Images/s of a stage that trains the CNN, too, against a plain in-memory loop."""
    return _against_the_loop(bench, "images", 40, 0.95, lambda: trained(bench, FINETUNING))


def finetuning_on_ray(bench: Bench) -> Result:
    """As before, with one worker of Ray Train, which shares the cores with Ray's own processes."""
    worker = ["--num_workers", 1, "--ray.num_cpus", CORES]
    return _against_the_loop(bench, "images", 40, 0.95, lambda: trained(bench, FINETUNING, *worker))


def finetuning_on_ray_with_a_core(bench: Bench) -> Result:
    """As before, with one core for the worker, and one for the loop; Ray's processes have the others."""
    worker = ["--num_workers", 1, "--ray.num_cpus", 1]
    return _against_the_loop(bench, "images", 25, 0.95, lambda: trained(bench, FINETUNING, *worker), threads=1)


def on_features(bench: Bench) -> Result:
    """Images/s of the stage with a frozen CNN, against a plain loop on a tensor of features."""
    return _against_the_loop(bench, "features", 120, 0.90, lambda: trained(bench, {**ON_FEATURES, "epochs": 3}))


def _against_the_loop(
    bench: Bench, kind: str, steps: int, target: float, ours: Callable[[], float], *, threads: int = CORES
) -> Result:
    def loop() -> float:
        found = bench.reported("-m", "benchmarks.plain_training", data(bench), kind, steps, threads)
        return float(found["images_per_s"])

    return Result(*bench.by_turns(ours, loop), "images/s", target, more_is_better=True)


def two_workers(bench: Bench) -> Result:
    """Images/s of two workers with a core each that train the CNN too, against one with a core, on the same batches.

    Batches have 32 images: on one core, PyTorch chooses a slow convolution for fewer than 16 images per worker.
    """
    stage = {**FINETUNING, "batch_size": 32}
    one, two = (
        lambda workers=workers: trained(bench, stage, "--num_workers", workers, "--ray.num_cpus", 1)
        for workers in (1, 2)
    )
    return Result(*bench.by_turns(two, one), "images/s", 1.5, more_is_better=True)


def rewards(bench: Bench) -> Result:
    """Seconds of the rewards of self-critical training, against those of its steps, including the CNN."""
    found = bench.reported("-m", "benchmarks.rewards", data(bench))
    return Result([found["rewards_s"]], [found["steps_s"]], "s", 0.1, more_is_better=False)


ROWS: dict[str, Callable[[Bench], Result]] = {
    "train, images": finetuning,
    "train, Ray": finetuning_on_ray,
    "train, Ray, one core": finetuning_on_ray_with_a_core,
    "train, features": on_features,
    "train, 2 workers": two_workers,
    "rewards": rewards,
}
