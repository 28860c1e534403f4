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
    image_size: int = 224
    """Side of the square input, pixels."""


@dataclass(frozen=True)
class StageConfig:
    """One stage of training; the defaults are those of the first, the language model on a frozen CNN."""

    epochs: int = 5
    """Times every image is seen; 0 leaves the stage out."""
    batch_images: int = 16
    """Images per step; all their captions go with them."""
    learning_rate: float = 2e-3
    """Of the decoder and the projection, at its peak."""
    cnn_learning_rate: float = 0.0
    """Of the CNN; 0 keeps it frozen, and its features are computed once."""
    weight_decay: float = 0.01
    """AdamW's."""
    warmup_steps: int = 200
    """Steps in which the learning rates rise; then they fall along a cosine."""
    clip_norm: float = 5.0
    """Largest norm of the gradient."""
    label_smoothing: float = 0.05
    """Share of the probability spread over the vocabulary."""
    dropout: float = 0.4
    """Probability, before and after the LSTM."""
    smallest_crop: float = 1.0
    """Least side of random crops, as a share of the image's; below 1 crops and mirrors. Needs the CNN in the loop."""
    foretelling_weight: float = 6.0
    """Of foretelling a caption's words from the image alone, beside the loss of a token; 0 leaves it out."""
    samples_per_image: int = 0
    """Above 1, self-critical: captions drawn for each image, rewarded by CIDEr-D; 0 learns from people's captions."""
    average_decay: float = 0.99
    """Of the moving average of the weights, which is what is validated and kept; 0 keeps the weights themselves."""

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch_images < 1 or self.learning_rate <= 0 or self.cnn_learning_rate < 0:
            raise ConfigError("a stage needs epochs ≥ 0, batch_images ≥ 1, learning_rate > 0 and cnn_learning_rate ≥ 0")
        if self.samples_per_image < 0 or self.samples_per_image == 1 or self.foretelling_weight < 0:
            raise ConfigError("a stage needs foretelling_weight ≥ 0 and samples_per_image 0, or 2 and more")
        shares = (self.average_decay, self.label_smoothing, self.dropout)
        if not 0 < self.smallest_crop <= 1 or not all(0 <= share < 1 for share in shares):
            raise ConfigError(
                "a stage needs smallest_crop in (0, 1], and average_decay, label_smoothing, dropout in [0, 1)"
            )


def _finetune() -> StageConfig:
    return StageConfig(
        epochs=12,
        learning_rate=1e-3,
        cnn_learning_rate=2e-4,
        smallest_crop=0.8,
        average_decay=0.995,
    )


def _self_critical() -> StageConfig:
    return StageConfig(
        epochs=0,
        learning_rate=2e-4,
        warmup_steps=50,
        clip_norm=1.0,
        label_smoothing=0.0,
        dropout=0.0,
        foretelling_weight=0.0,
        samples_per_image=5,
    )


@dataclass(frozen=True)
class TrainConfig:
    """Train a captioner on shards that `shardtalk prepare` wrote: the language model, the CNN too, then on CIDEr-D."""

    data: str
    """Folder that `shardtalk prepare` wrote."""
    output: str
    """Folder for the run: `best/` is the captioner, `history.jsonl` its scores by epoch."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    """The captioner's shape."""
    language: StageConfig = field(default_factory=StageConfig)
    """First stage: the decoder on a frozen CNN."""
    finetune: StageConfig = field(default_factory=_finetune)
    """Second stage: the whole CNN too."""
    self_critical: StageConfig = field(default_factory=_self_critical)
    """Third stage: on the captioner's own captions, rewarded by CIDEr-D. Left out unless it gets epochs."""
    captions_per_image: int = 5
    """Captions of each image in a step; an image with fewer repeats some."""
    max_tokens: int = 20
    """Words of the captions that self-critical training draws, at most."""
    beam_size: int = 3
    """Of the captions that are scored after each epoch."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes cuda where there is one."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the matrix products; auto takes bfloat16 on cuda, float32 on the CPU."""
    weights_dtype: Literal["float32", "float16"] = "float32"
    """Of the captioner's file; float16 halves it, and its captions stay the same but for rare ties."""
    threads: int = 4
    """That decode images ahead."""
    seed: int = 123
    """Of initial weights, order, dropout and crops."""
