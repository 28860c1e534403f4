"""Runs training on Ray Train. The workers run the same `Trainer` and report to the driver through an actor."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer, get_device
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from configs.train import TrainConfig
from model.device import SINGLE_ARENA
from model.errors import ModelError
from pipeline.datasets.prepared_split import PreparedSplit
from pipeline.errors import PipelineError, TrainingError, WriteError
from pipeline.storage.folder import Folder
from pipeline.training.config import Callback, Progress
from pipeline.training.distributed import WorldInfo
from pipeline.training.trainer import Trainer

REPORT_INTERVAL_S = 0.5
FOLDER = "ray-train"
"""Subfolder of the run's folder for Ray Train's own files, during the run; it must be reachable from all nodes."""


class ProgressActor:
    """An actor that buffers the main worker's reports for the driver, and holds the driver's stop request."""

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._stop = False
        self._result: bool | Exception | None = None

    def post(self, item: Progress | Mapping[str, Any]) -> bool:
        """Adds a report; returns whether to stop."""
        self._items.append(item)
        return self._stop

    def set_result(self, how: bool | Exception) -> None:
        """Stores whether the run is finished, or the error that a retry would not fix."""
        self._result = how

    def result(self) -> bool | Exception | None:
        """Returns the stored result; None while the run lasts."""
        return self._result

    def poll(self, *, stop: bool) -> list[Any]:
        """Returns the reports since the last call, and stores the stop request."""
        items, self._items, self._stop = self._items, [], stop
        return items


class ActorReporter:
    """A worker's `Callback`, which reports to the `ProgressActor`."""

    def __init__(self, actor: Any, *, first: bool) -> None:
        self.stop = False
        self._actor, self._first = actor, first
        self._next_s, self._answer = 0.0, None

    def progress(self, progress: Progress) -> None:
        """Reports at most every `REPORT_INTERVAL_S`, without waiting for the answer."""
        if time.monotonic() < self._next_s:
            return
        if self._answer is not None and ray.wait([self._answer], timeout=0)[0]:
            self.stop = ray.get(self._answer)
        self._answer = self._actor.post.remote(progress)
        self._next_s = time.monotonic() + REPORT_INTERVAL_S

    def epoch(self, report: Mapping[str, Any]) -> None:
        """Reports to Ray Train, which shows it on its dashboard, and to the driver."""
        ray.train.report(dict(report))
        if self._first:
            self.stop = ray.get(self._actor.post.remote(dict(report)))


def train_loop_per_worker(arguments: dict[str, Any]) -> None:
    """Runs the training of one worker."""
    logging.getLogger("ray.train").setLevel(logging.WARNING)  # it repeats every report
    actor = arguments["board"]
    if isinstance(ray.get(actor.result.remote()), Exception):
        return  # Ray Train restarts the workers after any failure; this one is final
    world = WorldInfo.detect(get_device())
    try:
        train, val = ray.get(arguments["splits"])
        callback = ActorReporter(actor, first=world.is_main)
        finished = Trainer(arguments["config"], train, val, world, callback).run()
    except (ModelError, PipelineError, TrainingError, WriteError) as error:
        ray.get(actor.set_result.remote(error))
        raise
    if world.is_main:
        ray.get(actor.set_result.remote(finished))


def run_on_ray(
    config: TrainConfig,
    train: PreparedSplit,
    val: PreparedSplit,
    callback: Callback,
    *,
    num_workers: int | tuple[int, int],
    resources: Mapping[str, float],
    max_failures: int,
) -> bool:
    """Trains on workers of Ray Train; returns False if it was stopped before the end.

    Args:
        num_workers: number of workers, or minimum and maximum.
        resources: "CPU" and "GPU" of each worker.
        max_failures: number of worker failures after which the run fails.

    Raises what a `Trainer` raises, and TrainingError if workers die too often.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(ProgressActor).options(num_cpus=0, scheduling_strategy=here).remote()
    folder = Folder(config.output)
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    trainer = TorchTrainer(
        train_loop_per_worker,
        train_loop_config={"config": config, "splits": [ray.put(train), ray.put(val)], "board": actor},
        scaling_config=ScalingConfig(
            num_workers=num_workers,  # type: ignore[arg-type]
            use_gpu=resources["GPU"] > 0,
            resources_per_worker=dict(resources),
        ),
        run_config=RunConfig(
            name="train",
            storage_path=f"{folder.path}/{FOLDER}",
            storage_filesystem=folder.system,
            failure_config=FailureConfig(max_failures=max_failures),
            worker_runtime_env={"env_vars": SINGLE_ARENA},  # type: ignore[call-arg]  # `train_loop_per_worker` runs in a thread
        ),
    )
    failure = _report_while_running(trainer.fit, actor, callback)
    result = ray.get(actor.result.remote())
    folder.remove_all(FOLDER)
    if isinstance(result, Exception):
        raise result
    if failure:
        raise TrainingError(f"workers failed more than {max_failures} times; the last: {failure}") from failure
    return bool(result)


def _report_while_running(fit: Callable[[], object], actor: Any, callback: Callback) -> TrainingFailedError | None:
    """Passes the actor's reports on while `fit` runs in a thread; returns its failure, if any."""
    failures = list[TrainingFailedError]()

    def run() -> None:
        try:
            fit()
        except TrainingFailedError as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="ray-train", daemon=True)
    thread.start()
    alive = True
    while alive:
        thread.join(REPORT_INTERVAL_S)
        alive = thread.is_alive()
        for item in ray.get(actor.poll.remote(stop=callback.stop)):
            if isinstance(item, Progress):
                callback.progress(item)
            else:
                callback.epoch(item)
    return failures[0] if failures else None
