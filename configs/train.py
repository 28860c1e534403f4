"""Options of `shardtalk train`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from configs.errors import ConfigError
from configs.network import InitialNetwork
from configs.optimizer import Optimizer
from configs.stage import Stage


def _stages() -> list[Stage]:
    finetune = Stage(
        name="finetune",
        epochs=12,
        optimizer=Optimizer(learning_rate=1e-3),
        cnn=Optimizer(learning_rate=2e-4),
        min_crop_scale=0.8,
        ema_decay=0.995,
    )
    return [Stage(), finetune]


@dataclass(frozen=True)
class RayTrain:
    """The workers of Ray Train. Used with num_workers of 1 or more."""

    address: str = ""
    """Address of the Ray cluster. Empty: RAY_ADDRESS, or else Ray is started on this machine."""
    min_workers: int = 0
    """Minimum number of workers: training goes on with as few while nodes are missing, and with more once they are
    back. 0 always needs num_workers."""
    num_gpus: float = -1.0
    """GPUs per worker. -1: 1 where the cluster has GPUs, otherwise 0."""
    num_cpus: float = 1.0
    """CPUs per worker. Above 1, a worker without a GPU computes with as many threads."""
    max_failures: int = 3
    """Number of worker failures after which the job fails. Workers restart from the latest saved state."""


@dataclass(frozen=True)
class TrainConfig:
    """Train a captioner, stage by stage, on shards that `shardtalk prepare` wrote. The same command again resumes.

    There are two stages unless `stages` in --config FILE lists others: language trains the decoder on a frozen CNN,
    then finetune trains both. --stages.NAME.OPTION changes an option of one stage, as in --stages.finetune.epochs 3.
    """

    data: str
    """Folder or URL that `shardtalk prepare` wrote."""
    output: str
    """Folder or URL of the run: best/ holds the best captioner, latest/ the state to resume from, history.jsonl and
    curve.png the scores of each epoch, tensorboard/ the same for TensorBoard. Workers must be able to reach it."""
    network: InitialNetwork = field(default_factory=InitialNetwork)
    """The network that training begins with."""
    start_from: str = ""
    """Directory, name or URL of a captioner to begin with, in place of `network`: its weights, architecture and
    preprocessing are used. The data must have its vocabulary (`shardtalk prepare --vocabulary`)."""
    stages: list[Stage] = field(default_factory=_stages)
    """The stages of training, in order; each begins with the best captioner so far."""
    captions_per_image: int = 5
    """Number of captions of each image used in a step. Images with fewer captions repeat some."""
    max_tokens: int = 20
    """Maximum number of words in the captions that self-critical training samples."""
    beam_size: int = 3
    """Number of beams with which validation images are captioned after each epoch."""
    selection_metric: Literal["cider", "loss"] = "cider"
    """Metric on the validation split that selects the best captioner: CIDEr of its captions, or loss per token."""
    num_workers: int = 0
    """Number of Ray Train workers that share the images of each step. 0 trains in this process, without Ray."""
    ray: RayTrain = field(default_factory=RayTrain)
    """The workers of Ray Train."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of training without Ray (num_workers 0). auto is cuda if there is one, otherwise cpu."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Data type of matrix products. auto is bfloat16 on cuda and float32 on the CPU."""
    compile_cnn: bool = False
    """Compile the CNN with torch.compile: takes a minute at the start and makes steps faster on a GPU."""
    weights_dtype: Literal["float32", "float16"] = "float32"
    """Data type of the saved captioner's weights. float16 halves the file; captions differ only in rare ties."""
    num_decode_threads: int = 4
    """Number of threads per worker that decode images ahead of training."""
    buffer_images: int = 10_000
    """Size of each worker's shuffle buffer, in encoded images."""
    save_steps: int = 1_000
    """Number of steps between saves of latest/, besides the one at the end of each epoch. 0 saves at the end of epochs
    only."""
    keep_epochs: int = 0
    """Number of recent epochs whose captioners are kept in epochs/, beside the best and the latest."""
    shutdown_timeout_s: float = 60.0
    """Seconds that a stop request (SIGINT, SIGTERM) leaves to finish the step and save latest/ before the process
    ends."""
    seed: int = 123
    """Random seed of initial weights, order of images, dropout and crops."""

    @property
    def active_stages(self) -> list[Stage]:
        """The stages that are not skipped."""
        return [stage for stage in self.stages if stage.epochs or stage.steps]

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"stages are {', '.join(names) or 'none'}; give one at least, each with its own name")
        if self.network.attention_heads and any(stage.cached_augmentations for stage in self.stages):
            raise ConfigError(
                "stages need cached_augmentations 0 with network.attention_heads: the features of all regions are too "
                "many to cache, so the CNN sees a new crop at each step"
            )
        if (
            min(self.captions_per_image, self.max_tokens, self.beam_size, self.num_decode_threads, self.buffer_images)
            < 1
        ):
            raise ConfigError(
                "captions_per_image, max_tokens, beam_size, num_decode_threads and buffer_images must be at least 1"
            )
        if (
            min(self.save_steps, self.keep_epochs, self.shutdown_timeout_s, self.ray.num_cpus, self.ray.max_failures)
            < 0
        ):
            raise ConfigError("need save_steps, keep_epochs, shutdown_timeout_s, ray.num_cpus and ray.max_failures ≥ 0")
        if not 0 <= self.ray.min_workers <= max(0, self.num_workers) or self.num_workers < 0:
            raise ConfigError("need num_workers ≥ 0 and ray.min_workers from 0 to num_workers")
