"""What `shardtalk train` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from configs.parsing import ConfigError


@dataclass(frozen=True)
class NetworkConfig:
    """The captioner's shape."""

    cnn: str = "mobilenet_v2"
    """A torchvision classifier, such as vgg16, resnet50, mobilenet_v2."""
    weights: str = "DEFAULT"
    """Where the CNN starts: a .safetensors or state-dict file, or the name of torchvision's weights (downloaded)."""
    embedding_size: int = 512
    """Size of the image's and the words' embedding."""
    hidden_size: int = 512
    """Size of the LSTM."""
    layers: int = 1
    """Layers of the LSTM."""
    attention_heads: int = 0
    """With which each word looks at the CNN's last map of features, a divisor of embedding_size and hidden_size; 0: the
    decoder is told the pooled ones alone, which are kept while the CNN is frozen."""
    image_size: int = 224
    """Side of the square input, pixels."""
    standardize: bool = True
    """Whether the mean of the CNN's features over the training images is taken away, and their deviation made 1."""


@dataclass(frozen=True)
class OptimizerConfig:
    """How weights follow their gradient."""

    name: Literal["adamw", "adam", "sgd", "nesterov", "rmsprop", "adagrad", "neuraltalk2_adam"] = "adamw"
    """The algorithm; neuraltalk2_adam is adam with epsilon added before the bias is corrected."""
    learning_rate: float = 2e-3
    """At its peak; 0 freezes the weights."""
    weight_decay: float = 0.01
    """Of matrices, but not of word embeddings. adamw's is apart from the gradient, the others' is added to it."""
    momentum: float = 0.9
    """beta 1 of adamw and adam; the momentum of sgd, nesterov and rmsprop."""
    smoothing: float = 0.98
    """beta 2 of adamw and adam; alpha of rmsprop."""
    epsilon: float = 1e-8
    """Added to the root of the second moment."""

    def __post_init__(self) -> None:
        if self.learning_rate < 0 or self.weight_decay < 0 or self.epsilon < 0:
            raise ConfigError("an optimiser needs learning_rate ≥ 0, weight_decay ≥ 0 and epsilon ≥ 0")
        if not (0 <= self.momentum < 1 and 0 <= self.smoothing < 1):
            raise ConfigError("an optimiser needs momentum and smoothing in [0, 1)")


@dataclass(frozen=True)
class ScheduleConfig:
    """What becomes of the learning rates: up in a line, then down."""

    shape: Literal["cosine", "constant", "halving", "step"] = "cosine"
    """cosine falls to 0 at the last step; halving is neuraltalk2's, a smooth fall; step falls at once."""
    warmup_steps: int = 200
    """In which the rates rise; at most a quarter of all."""
    start_step: int = 0
    """Until which halving and step wait."""
    every_steps: int = 50_000
    """In which halving and step fall by the factor."""
    factor: float = 0.5
    """Of halving and step."""

    def __post_init__(self) -> None:
        if min(self.warmup_steps, self.start_step) < 0 or self.every_steps < 1 or not 0 < self.factor <= 1:
            raise ConfigError("a schedule needs warmup_steps ≥ 0, start_step ≥ 0, every_steps ≥ 1, factor in (0, 1]")


@dataclass(frozen=True)
class StageConfig:
    """A stage of training; the defaults are those of the language model on a frozen CNN."""

    name: str = "language"
    """By which the command line and the history call it."""
    epochs: int = 5
    """Times every image is seen; 0 leaves the stage out."""
    steps: int = 0
    """Ends after so many steps, whatever the epochs; 0: by epochs."""
    image_size: int = 0
    """Side of its square input, pixels; 0: the network's. A captioner is kept with that of its stage."""
    batch_images: int = 16
    """Images per step, of all workers together; captions_per_image of each go with them."""
    accumulate: int = 1
    """Parts in which a worker computes its images of a step, one after the other: memory for time."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Of the decoder and the projection."""
    cnn: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(learning_rate=0.0))
    """Of the CNN. learning_rate 0 keeps it frozen, and without crops its features are computed once."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Of both learning rates."""
    clip_norm: float = 5.0
    """Largest norm of the gradient; 0: any."""
    clip_value: float = 0.0
    """Largest size of each of its values; 0: any."""
    label_smoothing: float = 0.05
    """Share of the probability spread over the vocabulary."""
    dropout: float = 0.4
    """Probability, after each layer of the LSTM."""
    input_dropout: float = 0.4
    """Probability, before the LSTM: of the image's, its places' and the words' embeddings."""
    cnn_dropout: bool = False
    """Whether the CNN's own dropout is on; else the CNN is trained as it is used."""
    train_batch_norm: bool = False
    """Whether the CNN's batch norms follow the batches; else they keep the statistics they came with."""
    scheduled_sampling: float = 0.0
    """Probability of hearing an own word instead of the caption's, at the last step; it grows in a line from 0."""
    smallest_crop: float = 1.0
    """Least side of random crops, as a share of the image's; below 1 crops and mirrors. Needs the CNN in the loop."""
    views: int = 0
    """With a frozen CNN: it is asked once about each image and so many crops, of which an epoch takes one; 0: new crops
    at each step."""
    foretelling_weight: float = 6.0
    """Of foretelling a caption's words from the image alone, beside the loss of a token; 0 leaves it out."""
    samples_per_image: int = 0
    """Above 0, self-critical: captions drawn for each image, rewarded by CIDEr-D; 0 learns from people's captions."""
    temperature: float = 1.0
    """Of drawing, and of what is learnt of it; below 1 it draws what is probable, as a search does."""
    baseline: Literal["others", "greedy"] = "others"
    """What a drawn caption has to beat: the mean of the image's others, or what the network says at its surest."""
    written_weight: float = 0.0
    """Of captions_per_image of people's captions beside the drawn ones; CIDEr-D alone forgets how people speak."""
    average_decay: float = 0.99
    """Of the moving average of the weights, which is what is validated and kept; 0 keeps the weights themselves."""

    def __post_init__(self) -> None:
        where = f"stage {self.name!r} needs"
        if not self.name or "." in self.name or "/" in self.name:
            raise ConfigError(f"a stage's name is {self.name!r}; it needs one without dots and slashes")
        if min(self.epochs, self.steps, self.image_size, self.clip_norm, self.clip_value, self.views) < 0:
            raise ConfigError(f"{where} epochs, steps, image_size, clip_norm, clip_value and views ≥ 0")
        if min(self.foretelling_weight, self.written_weight) < 0 or self.temperature <= 0:
            raise ConfigError(f"{where} foretelling_weight and written_weight ≥ 0, and temperature above 0")
        if self.views and (self.cnn.learning_rate or self.smallest_crop == 1.0):
            raise ConfigError(f"{where} cnn.learning_rate 0 and smallest_crop below 1 for views")
        if self.batch_images < 1 or not 1 <= self.accumulate <= self.batch_images:
            raise ConfigError(f"{where} batch_images ≥ 1 and accumulate from 1 to batch_images")
        shares = (self.average_decay, self.label_smoothing, self.dropout, self.input_dropout, self.scheduled_sampling)
        if not 0 < self.smallest_crop <= 1 or not all(0 <= share < 1 for share in shares):
            raise ConfigError(
                f"{where} smallest_crop in (0, 1], and average_decay, label_smoothing, dropout, "
                "input_dropout and scheduled_sampling in [0, 1)"
            )
        if self.samples_per_image < 0 or (self.samples_per_image == 1 and self.baseline == "others"):
            raise ConfigError(f"{where} samples_per_image ≥ 0, and 2 for the others to be a baseline")


def _stages() -> list[StageConfig]:
    finetune = StageConfig(
        name="finetune",
        epochs=12,
        optimizer=OptimizerConfig(learning_rate=1e-3),
        cnn=OptimizerConfig(learning_rate=2e-4),
        smallest_crop=0.8,
        average_decay=0.995,
    )
    return [StageConfig(), finetune]


@dataclass(frozen=True)
class RayTrainConfig:
    """The workers, where there are any."""

    address: str = ""
    """Of a cluster to connect to; empty takes RAY_ADDRESS, or starts Ray on this machine."""
    min_workers: int = 0
    """Goes on with as few where nodes are gone, and with more when they are back; 0: with num_workers only."""
    num_gpus: float = -1.0
    """Of each worker; -1: 1 where the cluster has GPUs, else 0."""
    num_cpus: float = 1.0
    """Of each worker; above 1 it computes with as many threads where it has no GPU."""
    max_failures: int = 3
    """Times that workers may die; they start again from the latest state."""


@dataclass(frozen=True)
class TrainConfig:
    """Train a captioner on shards that `shardtalk prepare` wrote, stage by stage. The same command again goes on.

    Stages are a list in --config FILE; --stages.NAME.option changes one of them, as does its place, as in
    --stages.0.option. --stages.help shows their options.
    """

    data: str
    """Folder or URL that `shardtalk prepare` wrote."""
    output: str
    """Folder or URL for the run: best/ is the captioner, latest/ where training goes on, history.jsonl and curve.png
    its scores by epoch, tensorboard/. Workers must reach it, too."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    """The captioner's shape."""
    start_from: str = ""
    """A captioner to begin with, by directory, name or URL: its weights, shape and preprocessing count, whatever
    `network` says. The data must have its vocabulary (`shardtalk prepare --vocabulary`)."""
    stages: list[StageConfig] = field(default_factory=_stages)
    """One after the other, each from the best captioner so far."""
    captions_per_image: int = 5
    """Captions of each image in a step; an image with fewer repeats some."""
    max_tokens: int = 20
    """Words of the captions that self-critical training draws, at most."""
    beam_size: int = 3
    """Of the captions that are scored after each epoch."""
    best_by: Literal["cider", "loss"] = "cider"
    """What makes a captioner the best: its captions' CIDEr, or its loss per token, of the validation split."""
    num_workers: int = 0
    """Workers of Ray Train that share the images of each step; 0 trains in this process, without Ray."""
    ray: RayTrainConfig = field(default_factory=RayTrainConfig)
    """The workers, where there are any."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Without workers; auto takes cuda where there is one."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the matrix products; auto takes bfloat16 on cuda, float32 on the CPU."""
    compile_cnn: bool = False
    """torch.compile the CNN: a minute at the start, faster steps on a GPU."""
    weights_dtype: Literal["float32", "float16"] = "float32"
    """Of the captioner's file; float16 halves it, and its captions stay the same but for rare ties."""
    threads: int = 4
    """That decode images ahead, of each worker."""
    buffer_images: int = 10_000
    """Encoded images through which shards are shuffled, of each worker."""
    save_steps: int = 1_000
    """Steps after which latest/ is written, besides at the end of each epoch; 0: only then."""
    keep_epochs: int = 0
    """Captioners of the last epochs that are kept in epochs/, beside the best and the latest."""
    grace_s: float = 60.0
    """Asked to stop (SIGINT, SIGTERM), it finishes the step, writes latest/ and ends, at the latest after this time."""
    seed: int = 123
    """Of initial weights, order, dropout and crops."""

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"stages are {', '.join(names) or 'none'}; give one at least, each with its own name")
        if self.network.attention_heads and any(stage.views for stage in self.stages):
            raise ConfigError(
                "stages need views 0 with network.attention_heads: features of all places are too many to keep, so the "
                "CNN sees a new crop at each step"
            )
        if min(self.captions_per_image, self.max_tokens, self.beam_size, self.threads, self.buffer_images) < 1:
            raise ConfigError("captions_per_image, max_tokens, beam_size, threads and buffer_images must be at least 1")
        if min(self.save_steps, self.keep_epochs, self.grace_s, self.ray.num_cpus, self.ray.max_failures) < 0:
            raise ConfigError("need save_steps, keep_epochs, grace_s, ray.num_cpus and ray.max_failures ≥ 0")
        if not 0 <= self.ray.min_workers <= max(0, self.num_workers) or self.num_workers < 0:
            raise ConfigError("need num_workers ≥ 0 and ray.min_workers from 0 to num_workers")
