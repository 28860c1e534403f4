"""Training steps as the trainer runs them, on prepared shards, without validation and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Generator
from functools import partial
from itertools import islice

import numpy as np
import torch

from benchmarks.gpu import inputs
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.flops import flops_per_image, matrix_product_flops, peak_flops
from configs.optimizer import Optimizer, Schedule
from configs.stage import Stage
from model.nn.captioning_network import Architecture, Network
from model.training.train_step import Batch, Objective, TrainStep
from model.vision.preprocessing import Preprocessing
from pipeline.datasets.prepared_split import ImageIndices, PreparedSplit, read_split, read_vocabulary
from pipeline.training import step_inputs
from pipeline.training.data_loader import shuffle_epoch
from pipeline.training.objectives import BatchBuilder, self_critical_batches, teacher_forcing_batches, word_weights
from pipeline.training.step_inputs import Inputs

BATCH_IMAGES, STEPS, WARM_STEPS = 128, 30, 3
"""Images per step, as in configs/train-coco-*.yaml."""
SAMPLES, MAX_TOKENS = 5, 20
NETWORKS = ("resnet101", "vgg16")


class Learning:
    """A network that is trained completely, and its data.

    Args:
        cnn: name of a torchvision classifier; its weights are random.
    """

    def __init__(self, bench: Bench, cnn: str) -> None:
        self.bench, self.batch_images = bench, bench.scaled(BATCH_IMAGES, least=2)
        data = inputs.captioned(bench)
        self.split: PreparedSplit = read_split(data, "train")
        self.vocabulary = read_vocabulary(data)
        self.architecture = Architecture(vocabulary_size=self.vocabulary.size, cnn=cnn)
        with bench.device:  # which is fast to fill with random weights
            self.network: Network = self.architecture.build().to(memory_format=torch.channels_last)
        adam = Optimizer(learning_rate=1e-5)
        self.trainer = TrainStep(
            self.network,
            Stage(
                optimizer=adam,
                cnn=adam,
                schedule=Schedule("constant", warmup_steps=0),
                dropout=0.5,
                input_dropout=0.0,
                ema_decay=0.999,
            ),
            steps=1,
            objective=Objective(
                label_smoothing=0.05,
                word_weights=word_weights(self.split, self.vocabulary).to(bench.device),
                bag_of_words_weight=6.0,
                dtype=bench.dtype,
            ),
        )

    def step_s(self, lesson: BatchBuilder, steps: int) -> float:
        """Returns seconds per step on images from shards, as in a training run."""
        random, done, began = np.random.default_rng(0), 0, time.perf_counter()
        while done < steps + WARM_STEPS:
            for numbers, images in islice(self._epoch(random), steps + WARM_STEPS - done):
                if done == WARM_STEPS:
                    self.bench.synchronize()
                    began = time.perf_counter()
                parts = step_inputs.accumulation_parts(numbers, images, 1, min_crop_scale=0.8, random=random)
                self.trainer.step([lesson(some, given, random) for some, given in parts])
                done += 1
        self.bench.synchronize()
        return (time.perf_counter() - began) / steps

    def _epoch(self, random: np.random.Generator) -> Generator[tuple[ImageIndices, Inputs]]:
        order = shuffle_epoch(self.split, random, 0, 1, batch_size=self.batch_images, buffer_images=10_000)
        device, threads = self.bench.device, self.bench.cores
        return step_inputs.image_inputs(
            self.split, order, Preprocessing(), device=device, num_decode_threads=threads, first_step=0
        )


def finetuning(bench: Bench) -> None:
    """Measures images/s and model-FLOP utilisation of steps that train the whole network."""
    _finetuning(bench, compiled=False)


def finetuning_compiled(bench: Bench) -> None:
    """Measures the same with a compiled CNN, as in configs/train-coco-*.yaml."""
    _finetuning(bench, compiled=True)


def _finetuning(bench: Bench, *, compiled: bool) -> None:
    peak, card = peak_flops(bench.device)
    product = matrix_product_flops(bench)
    bench.figure("matrix product", product / 1e12, "TFLOP/s")
    of = (peak, card) if peak else (product, "the matrix product")
    # Compiling ResNet-101 takes minutes on a CPU: at a small scale it is left out.
    networks = NETWORKS[::-1][: bench.scaled(len(NETWORKS))] if compiled else NETWORKS
    bench.attempt({cnn: partial(_steps, bench, cnn, *of, compiled=compiled) for cnn in networks})


def _steps(bench: Bench, cnn: str, peak: float, of: str, *, compiled: bool) -> None:
    learning = Learning(bench, cnn)
    if compiled:
        learning.network.encoder.cnn.compile()
    lesson, size = teacher_forcing_batches(learning.split, inputs.CAPTIONS), learning.batch_images
    images = torch.randn(size, 3, 224, 224, device=bench.device).to(memory_format=torch.channels_last)
    batch = lesson(np.arange(size), {"images": images}, np.random.default_rng(0))
    images_per_s = size / bench.step_s(lambda: learning.trainer.step([batch]), seconds=4)
    bench.figure(f"{cnn}, batch {BATCH_IMAGES}", images_per_s, "images/s")
    flops = flops_per_image(learning.architecture, captions=inputs.CAPTIONS, words=inputs.CAPTION_WORDS)
    bench.figure(f"{cnn}, model-FLOP utilisation of {of}", images_per_s * flops / peak, "")
    if bench.device.type == "cuda":
        bench.figure(f"{cnn}, peak memory", torch.cuda.max_memory_allocated() / 2**30, "GiB")
        torch.cuda.reset_peak_memory_stats()
    step_s = learning.step_s(lesson, bench.scaled(STEPS))
    bench.figure(f"{cnn}, from shards", size / step_s, "images/s")


def self_critical(bench: Bench) -> None:
    """Measures seconds per self-critical step: sampling captions, CIDEr-D rewards, gradient."""
    learning, lesson_s = Learning(bench, NETWORKS[0]), list[float]()
    draw = self_critical_batches(
        learning.network,
        learning.split,
        learning.vocabulary,
        samples_per_image=SAMPLES,
        temperature=1.0,
        max_tokens=MAX_TOKENS,
        baseline="others",
        captions_per_image=inputs.CAPTIONS,
        cross_entropy_weight=0.0,
    )

    def timed(numbers: ImageIndices, given: Inputs, random: np.random.Generator) -> Batch:
        bench.synchronize()  # otherwise the time would include the previous step
        began = time.perf_counter()
        batch = draw(numbers, given, random)
        lesson_s.append(time.perf_counter() - began)
        return batch

    steps = bench.scaled(STEPS // 2)
    step_s = learning.step_s(timed, steps)
    bench.figure(f"{NETWORKS[0]}, batch {BATCH_IMAGES}, a step", step_s, "s")
    bench.figure(f"{NETWORKS[0]}, images", learning.batch_images / step_s, "images/s")
    bench.figure(f"{NETWORKS[0]}, share of drawing and rewards", sum(lesson_s[-steps:]) / steps / step_s, "")
