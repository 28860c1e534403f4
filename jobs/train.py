"""`shardtalk train`: trains a captioner on prepared shards.

Stage by stage, in this process or on workers of Ray Train; `pipeline/training/trainer.py` is what each runs.
After each epoch the validation split is captioned and scored, and the best captioner is kept in `best/`. The same
command again continues from `latest/`.
"""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import yaml

from cluster import connect
from cluster.connect import Resources
from configs.loading.renamed import with_new_names
from configs.train import TrainConfig
from jobs import cli
from jobs.console.stop_requests import stop_on_signals
from jobs.console.training_progress import TrainingProgress
from model.device import choose_device
from pipeline.datasets.prepared_split import PreparedSplit, read_split
from pipeline.errors import OutputError
from pipeline.storage.filesystems import is_remote
from pipeline.storage.folder import Folder
from pipeline.training.distributed import WorldInfo
from pipeline.training.run_directory import STATE
from pipeline.training.trainer import Trainer

log = logging.getLogger("shardtalk.train")

CONFIG = "config.yaml"
MAY_CHANGE = {
    *("output", "num_workers", "ray", "device", "num_decode_threads", "compile_cnn"),
    *("buffer_images", "save_steps", "keep_epochs", "shutdown_timeout_s"),
}
"""Options that may differ when a run goes on. More stages may follow, too."""


def run(config: TrainConfig) -> int:
    """Trains a captioner; returns the exit code."""
    config = _absolute(config)
    train, val = read_split(config.data, "train"), read_split(config.data, "val", captions=True)
    _claim(Folder(config.output), config)
    # Connected before `stop_on_signals`: Ray takes SIGTERM for itself.
    resources = connect.connect(config.ray.address) if config.num_workers else None
    announce, give_up = (
        partial(log.info, "stopping: saving where the run stands"),
        partial(_give_up, config.shutdown_timeout_s),
    )
    with (
        stop_on_signals(announce, timeout_s=config.shutdown_timeout_s, give_up=give_up) as stop,
        TrainingProgress(stop) as shown,
    ):
        finished = _trained(config, resources, train, val, shown)
    log.info(
        f"the best captioner is {config.output}/best" if finished else "interrupted: the same command again goes on"
    )
    return 0 if finished else cli.INTERRUPTED


def _trained(
    config: TrainConfig, resources: Resources | None, train: PreparedSplit, val: PreparedSplit, shown: TrainingProgress
) -> bool:
    """Trains on workers if there are resources of a cluster, else in this process; returns True if it finished."""
    if not resources:
        alone = WorldInfo.detect(choose_device(config.device))
        return Trainer(config, train, val, alone, shown).run()
    from pipeline.training.ray_train import run_on_ray

    fewest, most = config.ray.min_workers, config.num_workers
    num_gpus = config.ray.num_gpus if config.ray.num_gpus >= 0 else float(resources.num_gpus > 0)
    return run_on_ray(
        config,
        train,
        val,
        shown,
        num_workers=(fewest, most) if fewest else most,
        resources={"CPU": config.ray.num_cpus, "GPU": num_gpus},
        max_failures=config.ray.max_failures,
    )


def _absolute(config: TrainConfig) -> TrainConfig:
    """Makes paths absolute, since workers have another working directory."""

    def absolute(path: str) -> str:
        return path if is_remote(path) else str(Path(path).absolute())

    weights = config.network.weights  # without a suffix, they are the name of torchvision's
    network = replace(config.network, weights=absolute(weights) if Path(weights).suffix else weights)
    start_from = (
        absolute(config.start_from) if Path(config.start_from).is_dir() and config.start_from else config.start_from
    )
    return replace(
        config, data=absolute(config.data), output=absolute(config.output), network=network, start_from=start_from
    )


def _claim(folder: Folder, config: TrainConfig) -> None:
    """Writes the configuration into the run's folder. Raises OutputError if the folder holds another run."""
    mine = asdict(config)
    if folder.exists(STATE) and folder.exists(CONFIG):
        theirs = with_new_names(yaml.safe_load(folder.read(CONFIG)))
        before = mine | {"stages": mine["stages"][: len(theirs["stages"])]}
        differing = [name for name in before if name not in MAY_CHANGE and before[name] != theirs.get(name)]
        if differing:
            raise OutputError(
                f"output {folder.url} holds a run with other {', '.join(differing)} (see its {CONFIG}); "
                "give the same, or choose another output"
            )
    folder.write(CONFIG, yaml.safe_dump(mine, sort_keys=False, allow_unicode=True).encode())


def _give_up(shutdown_timeout_s: float) -> None:
    """Ends the process at once; the run can be continued from its last saved state."""
    log.info(
        f"interrupted: the last steps were not saved within {shutdown_timeout_s:g} s; the same command again goes on"
    )
    os._exit(cli.INTERRUPTED)


if __name__ == "__main__":
    sys.exit(cli.main(["train", *sys.argv[1:]]))
