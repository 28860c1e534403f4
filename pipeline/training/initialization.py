"""What a training run begins with."""

from __future__ import annotations

from model.captioner import checkpoint
from model.nn.captioning_network import Architecture, Network
from model.vision.preprocessing import Preprocessing
from model.vocabulary import Vocabulary
from pipeline.datasets.prepared_split import Split
from pipeline.errors import InputError
from pipeline.inference import captioner_store
from pipeline.training.config import Recipe


def first_network(recipe: Recipe, vocabulary: Vocabulary) -> tuple[Network, Architecture, Preprocessing]:
    """A captioner's where there is one to start from, else as asked for, with random weights. On the CPU.

    Raises CheckpointError for what is no captioner, InputError for one that speaks other words, OptionError for images
    of a size that its CNN cannot see.
    """
    if recipe.start_from:
        network, architecture, preprocessing = _of_a_captioner(recipe.start_from, vocabulary)
    else:
        architecture = Architecture(vocabulary_size=vocabulary.size, **recipe.network)
        network, side = architecture.build(), recipe.image_size
        preprocessing = Preprocessing(image_size=side, resize_size=side)
    for image_size in {stage.preprocessing(preprocessing).image_size for stage in recipe.stages}:
        network.encoder.check_image_size(image_size)
    return network, architecture, preprocessing


def _of_a_captioner(name: str, vocabulary: Vocabulary) -> tuple[Network, Architecture, Preprocessing]:
    directory = captioner_store.find(name)
    network, theirs, preprocessing = checkpoint.load(directory)
    if theirs.words != vocabulary.words:
        raise InputError(
            f"start_from {name} speaks {len(theirs.words)} words and the data has {len(vocabulary.words)}, or others; "
            "`shardtalk prepare --vocabulary` takes a captioner's"
        )
    return network, checkpoint.load_architecture(directory), preprocessing


def refuse_too_few(recipe: Recipe, train: Split, val: Split, workers: int) -> None:
    """Raises InputError unless every worker has an image at every step."""
    if min(len(train), len(val)) < workers:
        raise InputError(
            f"{recipe.data}: {len(train)} images to train on and {len(val)} to validate on are too few "
            f"for {workers} workers"
        )
    for stage in recipe.stages:
        if stage.batch_images < 2 * workers and workers > 1:
            raise InputError(
                f"stage {stage.name} has {stage.batch_images} images per step, too few for {workers} workers; "
                f"batch_images counts those of all workers, and must be at least {2 * workers}"
            )
