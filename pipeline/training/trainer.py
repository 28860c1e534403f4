"""A training run: stage by stage, epoch by epoch, step by step; alone, or as one of several workers that do the same.

All that is random in a step follows from the seed, the stage, the step and the worker: a run that was stopped goes on
as if it had not been.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Generator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from configs.search import Search
from configs.stage import Stage
from configs.train import TrainConfig
from model.device import choose_dtype, keep_freed_memory
from model.nn.captioning_network import Network
from model.nn.encoder import load_cnn
from model.training.train_step import Objective, TrainStep
from pipeline.datasets.prepared_split import Numbers, Split, read_vocabulary
from pipeline.training import feature_cache, step_inputs
from pipeline.training.config import Position, Progress, Reporter
from pipeline.training.data_loader import share, shuffled
from pipeline.training.distributed import Workers
from pipeline.training.initialization import first_network, preprocessing_of, refuse_too_few
from pipeline.training.objectives import Lesson, drawn, word_weights, written
from pipeline.training.run_directory import RunFolder
from pipeline.training.step_inputs import Inputs
from pipeline.training.step_monitor import Watch
from pipeline.training.validation import validate

STANDARDIZED_IMAGES = 2_000
"""Of the training images, drawn to know the mean and deviation of the CNN's features."""


class TrainingRun:
    """A network and its data, on one worker.

    Raises InputError, CheckpointError or OptionError for data, weights or options that cannot be used.
    """

    def __init__(self, config: TrainConfig, train: Split, val: Split, workers: Workers, reporter: Reporter) -> None:
        refuse_too_few(config, train, val, workers.count)
        keep_freed_memory()
        self.config, self.stages, self.train, self.val = config, config.active_stages, train, val
        self.workers, self.reporter = workers, reporter
        self.vocabulary = read_vocabulary(config.data)
        self.dtype = choose_dtype(config.dtype, workers.device)
        torch.manual_seed(config.seed)
        self.network, architecture, self.preprocessing = first_network(config, self.vocabulary)
        self._first_preprocessing = self.preprocessing
        self.folder = RunFolder(
            config.output,
            architecture=architecture,
            vocabulary=self.vocabulary,
            dtype=getattr(torch, config.weights_dtype),
            provenance={"trained_by": "shardtalk train", "config": asdict(config)},
        )
        self.position, self._stopping = Position(), False

    def run(self) -> bool:
        """Trains to the end, from where the folder's last state is; False if it was asked to stop before."""
        state = self.folder.state() or {}
        is_new = not state and not self.config.start_from
        if state:
            self.position = Position(**state["position"])
        if is_new:
            load_cnn(self.network.encoder.cnn, self.config.network.cnn, self.config.network.weights)
        self.network.to(self.workers.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if is_new and self.config.network.standardize and self.workers.first:  # the others get the first one's weights
            some = np.sort(self._random(0).permutation(len(self.train))[:STANDARDIZED_IMAGES])
            self.network.encoder.standardize(self._features(self.network, self.train, some).to(self.workers.device))
        if self.config.compile_cnn:
            self.network.encoder.cnn.compile()
        with self.folder:
            for number in range(self.position.stage, len(self.stages)):
                if not self._stage(number, state.pop("trainer", None)):
                    return False
            if self.workers.first:
                self.folder.forget_features()
        return True

    def _stage(self, number: int, state: dict[str, Any] | None) -> bool:
        """Trains a stage, from its state on. It begins with the best captioner so far."""
        stage = self.stages[number]
        if self.position.best:
            self.network.load_state_dict(self.position.best)
        self.workers.align(self.network)
        self.preprocessing = preprocessing_of(stage, self._first_preprocessing)
        epoch_steps = -(-len(self.train) // stage.batch_images)
        trainer = self._trainer(stage, stage.steps or stage.epochs * epoch_steps)
        if state:
            trainer.load_state_dict(state)
        cached = self._cached(stage) if stage.features_are_fixed and not self.network.encoder.spatial else {}
        lesson = self._lesson(stage)
        while trainer.global_step < trainer.steps:
            began, before = time.monotonic(), trainer.global_step
            self._epoch(number, trainer, lesson, cached.get("train"), epoch_steps)
            if trainer.global_step == trainer.steps or trainer.global_step % epoch_steps == 0:
                images_per_s = (trainer.global_step - before) * stage.batch_images / (time.monotonic() - began)
                self._end_epoch(stage, trainer, cached.get("val"), -(-trainer.global_step // epoch_steps), images_per_s)
            if trainer.global_step < trainer.steps:
                self._keep(trainer.averaged, trainer)
            if self._stopping:
                break
        if trainer.global_step == trainer.steps:
            self.position.stage, self.position.first_loss = number + 1, math.nan
            self._keep(trainer.averaged)
        return not self._stopping or self.position.stage == len(self.stages)

    def _trainer(self, stage: Stage, steps: int) -> TrainStep:
        return TrainStep(
            self.network,
            stage,
            steps=steps,
            objective=Objective(
                label_smoothing=stage.label_smoothing,
                word_weights=word_weights(self.train, self.vocabulary).to(self.workers.device),
                foretelling_weight=stage.foretelling_weight,
                dtype=self.dtype,
            ),
        )

    def _lesson(self, stage: Stage) -> Lesson:
        if not stage.samples_per_image:
            return written(self.train, self.config.captions_per_image)
        return drawn(
            self.network,
            self.train,
            self.vocabulary,
            samples_per_image=stage.samples_per_image,
            temperature=stage.temperature,
            max_tokens=self.config.max_tokens,
            baseline=stage.baseline,
            captions_per_image=self.config.captions_per_image,
            written_weight=stage.written_weight,
        )

    def _epoch(
        self, number: int, trainer: TrainStep, lesson: Lesson, cached: torch.Tensor | None, epoch_steps: int
    ) -> None:
        """Steps to the end of the epoch, or until somebody asks to stop."""
        stage, (epoch, step) = self.stages[number], divmod(trainer.global_step, epoch_steps)
        watch = Watch(stage, self.position, epoch_steps=epoch_steps, done=trainer.global_step, tell=self._tell)
        end = min(trainer.steps, (epoch + 1) * epoch_steps)
        with contextlib.closing(self._inputs(number, epoch, cached, step)) as steps:
            for numbers, inputs in steps:
                random = self._random(2, number, trainer.global_step, self.workers.rank)
                torch.manual_seed(int(random.integers(2**40)))
                parts = step_inputs.parts(
                    numbers, inputs, stage.accumulate, smallest_crop=stage.smallest_crop, random=random
                )
                if stage.features_are_fixed:
                    parts = step_inputs.seen(parts, self.network.encoder, dtype=self.dtype)
                batches = [lesson(some, given, random) for some, given in parts]
                watch.see(trainer.step(batches, stop_flag=self.reporter.stop))
                if trainer.global_step == end or watch.asked_to_stop:
                    break
                if self.config.save_steps and trainer.global_step % self.config.save_steps == 0:
                    watch.look()
                    self._keep(trainer.averaged, trainer)
        watch.look()
        self._stopping = watch.asked_to_stop

    def _inputs(
        self, number: int, epoch: int, cached: torch.Tensor | None, first_step: int
    ) -> Generator[tuple[Numbers, Inputs]]:
        """This worker's images of each step of an epoch, or what the CNN makes of them."""
        random, device = self._random(1, number, epoch), self.workers.device
        order = shuffled(
            self.train,
            random,
            self.workers.rank,
            self.workers.count,
            batch_images=self.stages[number].batch_images,
            buffer_images=self.config.buffer_images,
        )
        if cached is not None:
            views = random.integers(len(cached), size=len(self.train))
            return step_inputs.features(cached, views, order, device=device, first_step=first_step)
        return step_inputs.images(
            self.train, order, self.preprocessing, device=device, threads=self.config.threads, first_step=first_step
        )

    def _tell(self, progress: Progress) -> None:
        if self.workers.first:
            self.reporter.progress(progress)
            self.folder.note(self.position.step, {"loss": progress.loss, "images_per_s": progress.images_per_s})

    def _end_epoch(
        self, stage: Stage, trainer: TrainStep, cached: torch.Tensor | None, epoch: int, images_per_s: float
    ) -> None:
        """Validates the averaged weights, and keeps them if they are the best so far."""
        position, network = self.position, trainer.averaged
        mine = share(self.val, self.workers.rank, self.workers.count)
        found = cached[mine] if cached is not None else self._features(network, self.val, mine)
        scores = validate(
            network, self.val, found, self.vocabulary, Search(beam_size=self.config.beam_size), self.workers
        )
        report = {
            "stage": stage.name,
            "epoch": epoch,
            "step": position.step,
            "loss": position.loss / position.tokens,
            "images_per_s": images_per_s,
            **scores,
        }
        report = {key: round(value, 4) if isinstance(value, float) else value for key, value in report.items()}
        position.loss, position.tokens = 0.0, 0.0
        position.history += json.dumps(report) + "\n"
        score = -scores["val_loss"] if self.config.best_by == "loss" else scores["cider"]
        is_best = score > position.best_score
        if is_best:
            position.best_score = score
            position.best = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
        if self.workers.first:
            self.folder.record(position.history)
            if is_best:
                self.folder.save("best", network, self.preprocessing, report)
            if self.config.keep_epochs:
                name = f"{position.step:09}-{stage.name}-{epoch}"
                self.folder.save_epoch(name, network, self.preprocessing, report, keep=self.config.keep_epochs)
        self.reporter.epoch(report)

    def _keep(self, network: Network, trainer: TrainStep | None = None) -> None:
        """Saves where the run stands; the stage's trainer unless it is finished."""
        if self.workers.first:
            state = {"position": self.position.state_dict()}
            if trainer:
                state["trainer"] = trainer.state_dict()
            lines = self.position.history.splitlines()
            self.folder.keep(state, network, self.preprocessing, json.loads(lines[-1]) if lines else {})

    def _cached(self, stage: Stage) -> dict[str, torch.Tensor]:
        """The CNN's features of both splits, by name: views of the one, images of the other."""
        cache = feature_cache.Cache(self.folder.folder, self.network.encoder, self.preprocessing)
        options: dict[str, Any] = {"dtype": self.dtype, "threads": self.config.threads}
        train = cache.of(
            "train", self.train, self.workers, views=1 + stage.views, smallest_crop=stage.smallest_crop, **options
        )
        return {"train": train, "val": cache.of("val", self.val, self.workers, **options)[0]}

    def _features(self, network: Network, split: Split, numbers: Numbers) -> torch.Tensor:
        return feature_cache.computed(
            network.encoder,
            split,
            numbers,
            self.preprocessing,
            device=self.workers.device,
            dtype=self.dtype,
            threads=self.config.threads,
        )

    def _random(self, *what: int) -> np.random.Generator:
        return np.random.default_rng([self.config.seed, *what])
