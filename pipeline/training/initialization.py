"""Initializes the network of a training run, and checks that data and workers suffice."""

from __future__ import annotations

from configs.stage import Stage
from configs.train import TrainConfig
from model.captioner import checkpoint
from model.nn.captioning_network import Architecture, Network
from model.vision.preprocessing import Preprocessing
from model.vocabulary import Vocabulary
from pipeline.captioners import captioner_store
from pipeline.datasets.prepared_split import PreparedSplit
from pipeline.errors import InputError


def initialize_network(config: TrainConfig, vocabulary: Vocabulary) -> tuple[Network, Architecture, Preprocessing]:
    """Returns the network of the captioner to start from, or a new one with random weights; on the CPU.

    Raises CheckpointError for what is no captioner, InputError for one that speaks other words, OptionError for images
    of a size that its CNN cannot see.
    """
    if config.start_from:
        network, architecture, preprocessing = _load_captioner(config.start_from, vocabulary)
    else:
        shape, side = config.network, config.network.image_size
        architecture = Architecture(
            vocabulary_size=vocabulary.size,
            cnn=shape.cnn,
            embedding_size=shape.embedding_size,
            hidden_size=shape.hidden_size,
            layers=shape.layers,
            attention_heads=shape.attention_heads,
        )
        network = architecture.build()
        preprocessing = Preprocessing(image_size=side, resize_size=side, resampling="antialias")
    for image_size in {preprocessing_of(stage, preprocessing).image_size for stage in config.active_stages}:
        network.encoder.check_image_size(image_size)
    return network, architecture, preprocessing


def preprocessing_of(stage: Stage, preprocessing: Preprocessing) -> Preprocessing:
    """Returns the network's preprocessing at the stage's image size."""
    return preprocessing.with_image_size(stage.image_size) if stage.image_size else preprocessing


def _load_captioner(name: str, vocabulary: Vocabulary) -> tuple[Network, Architecture, Preprocessing]:
    directory = captioner_store.find(name)
    network, theirs, preprocessing = checkpoint.load(directory)
    if theirs.words != vocabulary.words:
        raise InputError(
            f"vocabulary mismatch: start_from {name} has {len(theirs.words)} words, the data {len(vocabulary.words)};"
            " `shardtalk prepare --vocabulary` uses a captioner's vocabulary"
        )
    return network, checkpoint.load_architecture(directory), preprocessing


def check_enough_images(config: TrainConfig, train: PreparedSplit, val: PreparedSplit, num_workers: int) -> None:
    """Raises InputError unless every worker has an image in every step."""
    if min(len(train), len(val)) < num_workers:
        raise InputError(
            f"{config.data}: {len(train)} images to train on and {len(val)} to validate on are too few "
            f"for {num_workers} workers"
        )
    for stage in config.active_stages:
        if stage.batch_size < 2 * num_workers and num_workers > 1:
            raise InputError(
                f"stage {stage.name} has {stage.batch_size} images per step, too few for {num_workers} workers; "
                f"batch_size counts those of all workers, and must be at least {2 * num_workers}"
            )
