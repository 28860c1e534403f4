"""Measures the share of rewards in the time of self-critical training: `python -m benchmarks.rewards DATA`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from configs.optimizer import Optimizer, Schedule
from configs.stage import Stage
from model.device import keep_freed_memory
from model.nn.captioning_network import Architecture
from model.training.train_step import Objective, TrainStep
from model.vision.preprocessing import Preprocessing
from pipeline.datasets.prepared_split import read_split, read_vocabulary
from pipeline.evaluation import cider
from pipeline.training import objectives
from pipeline.training.data_loader import in_order, pixel_batches, worker_share

STEPS, WARM_STEPS, BATCH_IMAGES = 12, 2, 16


class Timed(cider.CiderD):
    """A CIDEr-D scorer that measures its time."""

    seconds = 0.0

    def __call__(self, captions: Iterable[cider.Tokens], references: Sequence[cider.Tokens]) -> list[float]:
        """As `CiderD`."""
        started = time.perf_counter()
        found = super().__call__(captions, references)
        Timed.seconds += time.perf_counter() - started
        return found


def main(data: str) -> None:
    """Trains for some steps and prints the seconds of rewards and of steps."""
    keep_freed_memory()
    split, vocabulary, preprocessing = read_split(data, "train"), read_vocabulary(data), Preprocessing(resize_size=224)
    network = Architecture(vocabulary_size=vocabulary.size).build().to(memory_format=torch.channels_last)
    adam = Optimizer("adam", learning_rate=1e-5, weight_decay=0.0)
    stage = Stage(
        optimizer=adam,
        cnn=adam,
        schedule=Schedule("constant", warmup_steps=0),
        max_grad_norm=1.0,
        dropout=0.0,
        input_dropout=0.0,
        ema_decay=0.0,
    )
    trainer = TrainStep(network, stage, steps=STEPS, objective=Objective())
    objectives.CiderD = Timed  # type: ignore[attr-defined]
    lesson = objectives.self_critical_batches(
        network,
        split,
        vocabulary,
        samples_per_image=5,
        temperature=1.0,
        max_tokens=12,
        baseline="others",
        captions_per_image=5,
        cross_entropy_weight=0.0,
    )
    batches = pixel_batches(
        split, in_order(split, worker_share(split, 0, 1), BATCH_IMAGES), preprocessing, num_decode_threads=2
    )
    started = 0.0
    for step, (numbers, pixels) in enumerate(batches):
        if step == WARM_STEPS:
            started, Timed.seconds = time.perf_counter(), 0.0
        if step == STEPS:
            break
        inputs = {"images": preprocessing.normalize(pixels)}
        trainer.step([lesson(numbers, inputs, np.random.default_rng(step))])
    print(json.dumps({"rewards_s": Timed.seconds, "steps_s": time.perf_counter() - started}))


if __name__ == "__main__":
    main(*sys.argv[1:])
