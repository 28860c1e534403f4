"""The training loop over stages, epochs and steps, on one worker or several that run it in parallel.

All randomness of a step is derived from the seed, the stage, the step and the worker, so that a resumed run continues
exactly as if it had not been stopped.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Generator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from configs.search import Search
from configs.stage import Stage
from configs.train import TrainConfig
from model.captioner.metadata import DATA
from model.device import choose_dtype, keep_freed_memory
from model.nn.captioning_network import Network
from model.nn.frozen_cnn import FrozenFeatures
from model.nn.torchvision_cnns import load_cnn
from model.training.train_step import Objective, TrainStep
from pipeline.datasets.prepared_split import ImageIndices, PreparedSplit, read_vocabulary
from pipeline.training import feature_cache, step_inputs
from pipeline.training.config import Callback, Progress, TrainingState
from pipeline.training.data_loader import worker_share
from pipeline.training.distributed import WorldInfo
from pipeline.training.initialization import check_enough_images, initialize_network, preprocessing_of
from pipeline.training.objectives import BatchBuilder, batch_builder, word_weights
from pipeline.training.run_directory import RunDirectory
from pipeline.training.step_inputs import Inputs
from pipeline.training.step_monitor import StepMonitor
from pipeline.training.validation import validate

STANDARDIZED_IMAGES = 2_000
"""Number of training images from which mean and standard deviation of the CNN's features are estimated."""


class Trainer:
    """Trains a network on one worker.

    Raises InputError, CheckpointError or OptionError for data, weights or options that cannot be used.
    """

    def __init__(
        self, config: TrainConfig, train: PreparedSplit, val: PreparedSplit, world: WorldInfo, callback: Callback
    ) -> None:
        check_enough_images(config, train, val, world.count)
        keep_freed_memory()
        self.config, self.stages, self.train, self.val = config, config.active_stages, train, val
        self.world, self.callback = world, callback
        self.vocabulary = read_vocabulary(config.data)
        self.dtype = choose_dtype(config.dtype, world.device)
        torch.manual_seed(config.seed)
        self.network, architecture, self.preprocessing = initialize_network(config, self.vocabulary)
        self._first_preprocessing = self.preprocessing
        self.folder = RunDirectory(
            config.output,
            architecture=architecture,
            vocabulary=self.vocabulary,
            dtype=getattr(torch, config.weights_dtype),
            provenance={
                "trained_by": "shardtalk train",
                DATA: {"source": config.data, "images": len(train), "captions": len(train.caption_starts) - 1},
                "config": asdict(config),
            },
        )
        self.state, self._stopping = TrainingState(), False

    def run(self) -> bool:
        """Trains from the last saved state to the end; returns False if stopped before."""
        saved = self.folder.state() or {}
        is_new = not saved and not self.config.start_from
        if saved:
            self.state = TrainingState(**saved["position"])
        if is_new:
            load_cnn(self.network.encoder.cnn, self.config.network.cnn, self.config.network.weights)
        self.network.to(self.world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if is_new and self.config.network.standardize and self.world.is_main:  # others receive its weights
            some = np.sort(self._random(0).permutation(len(self.train))[:STANDARDIZED_IMAGES])
            self.network.encoder.standardize(self._features(self.network, self.train, some).to(self.world.device))
        if self.config.compile_cnn:
            self.network.encoder.cnn.compile()
        with self.folder:
            for number in range(self.state.stage, len(self.stages)):
                if not self._stage(number, saved.pop("trainer", None)):
                    return False
            if self.world.is_main:
                self.folder.remove_features()
        return True

    def _stage(self, number: int, saved: dict[str, Any] | None) -> bool:
        """Trains one stage, from its saved state or from the best captioner so far; returns False if stopped."""
        stage = self.stages[number]
        if self.state.best:
            self.network.load_state_dict(self.state.best)
        self.world.sync_parameters(self.network)
        self.preprocessing = preprocessing_of(stage, self._first_preprocessing)
        epoch_steps = -(-len(self.train) // stage.batch_size)
        train_step = self._train_step(stage, stage.steps or stage.epochs * epoch_steps)
        if saved:
            train_step.load_state_dict(saved)
        cached = self._cached(stage) if stage.features_are_fixed and not self.network.encoder.spatial else {}
        build_batch = batch_builder(stage, self.config, self.network, self.train, self.vocabulary)
        while train_step.global_step < train_step.steps:
            began, before = time.monotonic(), train_step.global_step
            self._epoch(number, train_step, build_batch, cached.get("train"), epoch_steps)
            if train_step.global_step == train_step.steps or train_step.global_step % epoch_steps == 0:
                images_per_s = (train_step.global_step - before) * stage.batch_size / (time.monotonic() - began)
                self._end_epoch(
                    stage, train_step, cached.get("val"), -(-train_step.global_step // epoch_steps), images_per_s
                )
            if train_step.global_step < train_step.steps:
                self._save(train_step.averaged, train_step)
            if self._stopping:
                break
        if train_step.global_step == train_step.steps:
            self.state.stage, self.state.first_loss = number + 1, math.nan
            self._save(train_step.averaged)
        return not self._stopping or self.state.stage == len(self.stages)

    def _train_step(self, stage: Stage, steps: int) -> TrainStep:
        return TrainStep(
            self.network,
            stage,
            steps=steps,
            objective=Objective(
                label_smoothing=stage.label_smoothing,
                word_weights=word_weights(self.train, self.vocabulary).to(self.world.device),
                bag_of_words_weight=stage.bag_of_words_weight,
                dtype=self.dtype,
            ),
        )

    def _epoch(
        self,
        number: int,
        train_step: TrainStep,
        build_batch: BatchBuilder,
        cached: torch.Tensor | None,
        epoch_steps: int,
    ) -> None:
        """Trains to the end of the epoch, or until a stop is requested."""
        stage, (epoch, step) = self.stages[number], divmod(train_step.global_step, epoch_steps)
        monitor = StepMonitor(
            stage, self.state, epoch_steps=epoch_steps, step=train_step.global_step, report=self._report
        )
        end = min(train_step.steps, (epoch + 1) * epoch_steps)
        features = self._fixed_features() if stage.features_are_fixed and cached is None else None
        with contextlib.closing(self._inputs(number, epoch, cached, step)) as steps:
            for indices, inputs in steps:
                random = self._random(2, number, train_step.global_step, self.world.rank)
                torch.manual_seed(int(random.integers(2**40)))
                parts = step_inputs.accumulation_parts(
                    indices,
                    inputs,
                    stage.gradient_accumulation_steps,
                    min_crop_scale=stage.min_crop_scale,
                    random=random,
                )
                if features:
                    parts = step_inputs.replace_by_features(parts, features, dtype=self.dtype)
                batches = [build_batch(some, given, random) for some, given in parts]
                monitor.record(train_step.step(batches, stop_flag=self.callback.stop))
                if train_step.global_step == end or monitor.stop_requested:
                    break
                if self.config.save_steps and train_step.global_step % self.config.save_steps == 0:
                    monitor.flush()
                    self._save(train_step.averaged, train_step)
        monitor.flush()
        self._stopping = monitor.stop_requested

    def _fixed_features(self) -> Callable[[torch.Tensor], torch.Tensor]:
        return FrozenFeatures(self.network.encoder, dtype=self.dtype)

    def _inputs(
        self, number: int, epoch: int, cached: torch.Tensor | None, first_step: int
    ) -> Generator[tuple[ImageIndices, Inputs]]:
        """Yields this worker's images of each step of an epoch, or their cached features."""
        return step_inputs.epoch_inputs(
            self.train,
            self.world,
            self._random(1, number, epoch),
            self.preprocessing,
            cached,
            batch_size=self.stages[number].batch_size,
            buffer_images=self.config.buffer_images,
            num_decode_threads=self.config.num_decode_threads,
            first_step=first_step,
        )

    def _report(self, progress: Progress) -> None:
        if self.world.is_main:
            self.callback.progress(progress)
            self.folder.log_step(self.state.step, {"loss": progress.loss, "images_per_s": progress.images_per_s})

    def _end_epoch(
        self, stage: Stage, train_step: TrainStep, cached: torch.Tensor | None, epoch: int, images_per_s: float
    ) -> None:
        """Validates the averaged weights, and saves them if they are the best so far."""
        state, network = self.state, train_step.averaged
        mine = worker_share(self.val, self.world.rank, self.world.count)
        found = cached[mine] if cached is not None else self._features(network, self.val, mine)
        scores = validate(
            network, self.val, found, self.vocabulary, Search(beam_size=self.config.beam_size), self.world
        )
        report = {
            "stage": stage.name,
            "epoch": epoch,
            "step": state.step,
            "loss": state.loss / state.tokens,
            "images_per_s": images_per_s,
            **scores,
        }
        report = {key: round(value, 4) if isinstance(value, float) else value for key, value in report.items()}
        score = -scores["val_loss"] if self.config.selection_metric == "loss" else scores["cider"]
        is_best = state.end_epoch(report, score, network)
        if self.world.is_main:
            self.folder.record(state.history)
            if is_best:
                self.folder.save("best", network, self.preprocessing, report)
            if self.config.keep_epochs:
                name = f"{state.step:09}-{stage.name}-{epoch}"
                self.folder.save_epoch(name, network, self.preprocessing, report, keep=self.config.keep_epochs)
        self.callback.epoch(report)

    def _save(self, network: Network, train_step: TrainStep | None = None) -> None:
        """Saves the training state, and the optimizer state unless the stage is finished."""
        if self.world.is_main:
            saved = {"position": self.state.state_dict()}
            if train_step:
                saved["trainer"] = train_step.state_dict()
            lines = self.state.history.splitlines()
            self.folder.save_state(saved, network, self.preprocessing, json.loads(lines[-1]) if lines else {})

    def _cached(self, stage: Stage) -> dict[str, torch.Tensor]:
        """Returns the CNN's features by split: (views, N, F) of train, (N, F) of val."""
        cache = feature_cache.FeatureCache(self.folder.folder, self.network.encoder, self.preprocessing)
        options: dict[str, Any] = {"dtype": self.dtype, "num_decode_threads": self.config.num_decode_threads}
        train = cache.of(
            "train",
            self.train,
            self.world,
            views=1 + stage.cached_augmentations,
            min_crop_scale=stage.min_crop_scale,
            **options,
        )
        return {"train": train, "val": cache.of("val", self.val, self.world, **options)[0]}

    def _features(self, network: Network, split: PreparedSplit, indices: ImageIndices) -> torch.Tensor:
        return feature_cache.compute_features(
            network.encoder,
            split,
            indices,
            self.preprocessing,
            device=self.world.device,
            dtype=self.dtype,
            num_decode_threads=self.config.num_decode_threads,
        )

    def _random(self, *what: int) -> np.random.Generator:
        return np.random.default_rng([self.config.seed, *what])
