"""Options of one stage of training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from configs.errors import ConfigError
from configs.optimizer import Optimizer, Schedule


@dataclass(frozen=True)
class Stage:
    """One stage of training. The defaults train the language model on a frozen CNN.

    Raises ConfigError for a value out of range.
    """

    name: str = "language"
    """Name of the stage on the command line and in the history."""
    epochs: int = 5
    """Number of passes over the training images. 0 skips the stage, unless steps is given."""
    steps: int = 0
    """Number of steps after which the stage ends, instead of epochs. 0 trains for the given number of epochs."""
    image_size: int = 0
    """Side of the square input image in this stage, in pixels; it is saved with the captioner. 0 takes
    network.image_size."""
    batch_size: int = 16
    """Number of images per step, over all workers; captions_per_image captions of each are used."""
    gradient_accumulation_steps: int = 1
    """Number of parts into which each worker divides its images of a step, one after the other, to save memory."""
    optimizer: Optimizer = field(default_factory=Optimizer)
    """Optimiser of the decoder and the projection."""
    cnn: Optimizer = field(default_factory=lambda: Optimizer(learning_rate=0.0))
    """Optimiser of the CNN. learning_rate 0 freezes the CNN, whose features are then computed once where there are no
    crops."""
    schedule: Schedule = field(default_factory=Schedule)
    """Schedule of both learning rates."""
    max_grad_norm: float = 5.0
    """Maximum norm of the gradient. 0 disables clipping by norm."""
    max_grad_value: float = 0.0
    """Maximum absolute value of each component of the gradient. 0 disables clipping by value."""
    label_smoothing: float = 0.05
    """Share of the target probability that is spread over the vocabulary, in [0, 1)."""
    dropout: float = 0.4
    """Dropout probability after each LSTM layer, in [0, 1)."""
    input_dropout: float = 0.4
    """Dropout probability of the LSTM's input, in [0, 1): the embeddings of the image, its regions and the words."""
    cnn_dropout: bool = False
    """Enable the CNN's own dropout while it is trained."""
    train_batch_norm: bool = False
    """Update the statistics of the CNN's batch norms; otherwise they keep their initial ones."""
    scheduled_sampling: float = 0.0
    """Final scheduled-sampling probability, in [0, 1); it increases linearly from 0."""
    min_crop_scale: float = 1.0
    """Minimum side of random crops, as a share of the image's side, in (0, 1]. Below 1, images are randomly cropped and
    mirrored; 1 disables augmentation."""
    cached_augmentations: int = 0
    """Number of random crops per image whose features are cached beside the whole image's; each epoch uses one of them.
    Needs a frozen CNN. 0 draws new crops at each step."""
    bag_of_words_weight: float = 6.0
    """Weight of the auxiliary bag-of-words loss, which predicts a caption's words from the image alone. 0 disables
    it."""
    samples_per_image: int = 0
    """Number of captions sampled per image in self-critical training, where CIDEr-D is the reward. 0 trains with
    cross-entropy on reference captions."""
    temperature: float = 1.0
    """Sampling temperature in self-critical training, above 0. Values below 1 favour probable words."""
    baseline: Literal["others", "greedy"] = "others"
    """Reward that is subtracted from a sampled caption's: the mean of the image's other samples, or the greedy
    caption's."""
    cross_entropy_weight: float = 0.0
    """Weight of the cross-entropy loss on reference captions, mixed into self-critical training for fluency. 0 disables
    it."""
    ema_decay: float = 0.99
    """Decay of the exponential moving average (EMA) of the weights, in [0, 1); the averaged weights are validated and
    saved. 0 disables averaging."""

    @property
    def features_are_fixed(self) -> bool:
        """True if the CNN is frozen and sees the same images in each epoch, so that its features can be cached."""
        return self.cnn.learning_rate == 0.0 and (self.min_crop_scale == 1.0 or self.cached_augmentations > 0)

    def __post_init__(self) -> None:
        where = f"stage {self.name!r} needs"
        if not self.name or "." in self.name or "/" in self.name:
            raise ConfigError(f"a stage's name is {self.name!r}; it needs one without dots and slashes")
        if (
            min(
                self.epochs,
                self.steps,
                self.image_size,
                self.max_grad_norm,
                self.max_grad_value,
                self.cached_augmentations,
            )
            < 0
        ):
            raise ConfigError(
                f"{where} epochs, steps, image_size, max_grad_norm, max_grad_value and cached_augmentations ≥ 0"
            )
        if min(self.bag_of_words_weight, self.cross_entropy_weight) < 0 or self.temperature <= 0:
            raise ConfigError(f"{where} bag_of_words_weight and cross_entropy_weight ≥ 0, and temperature above 0")
        if self.cached_augmentations and (self.cnn.learning_rate or self.min_crop_scale == 1.0):
            raise ConfigError(f"{where} cnn.learning_rate 0 and min_crop_scale below 1 for cached_augmentations")
        if self.batch_size < 1 or not 1 <= self.gradient_accumulation_steps <= self.batch_size:
            raise ConfigError(f"{where} batch_size ≥ 1 and gradient_accumulation_steps from 1 to batch_size")
        shares = (self.ema_decay, self.label_smoothing, self.dropout, self.input_dropout, self.scheduled_sampling)
        if not 0 < self.min_crop_scale <= 1 or not all(0 <= share < 1 for share in shares):
            raise ConfigError(
                f"{where} min_crop_scale in (0, 1], and ema_decay, label_smoothing, dropout, "
                "input_dropout and scheduled_sampling in [0, 1)"
            )
        if self.samples_per_image < 0 or (self.samples_per_image == 1 and self.baseline == "others"):
            raise ConfigError(f"{where} samples_per_image ≥ 0, and 2 for the others to be a baseline")
