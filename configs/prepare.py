"""Options of `shardtalk prepare`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from configs.errors import ConfigError

BEST_QUALITY = 100


@dataclass(frozen=True)
class PrepareConfig:
    """Write training shards: tars of images with their captions, a vocabulary and statistics."""

    captions: str
    """JSON file of captions in neuraltalk2's format (a list of file_path and captions), Karpathy's (dataset_*.json) or
    COCO's."""
    output: str
    """Folder for the shards, vocabulary.json and stats.json."""
    images_root: str = ""
    """Folder that the file paths in the JSON are relative to."""
    h5: str = ""
    """HDF5 file that neuraltalk2's prepro.py made, in place of images_root; JSON is then the file that it made, too.
    Its pixels, words, ids and splits are taken as they are; options about them have no effect."""
    num_val: int = 0
    """Number of images drawn for validation. If num_val and num_test are 0, the splits in the JSON are kept, if any."""
    num_test: int = 0
    """Number of images drawn for the test split. The others are for training."""
    seed: int = 123
    """Random seed of the draw."""
    tokenizer: Literal["standard", "neuraltalk2"] = "standard"
    """Tokenizer. neuraltalk2 reproduces the words, the vocabulary (of all captions, not only the training captions) and
    the splits of its prepro.py; with max_tokens 16 the ids, too, except for the order of the vocabulary."""
    vocabulary: str = ""
    """Directory of a captioner whose vocabulary is used, for training that starts from it. Other words become UNK."""
    word_count_threshold: int = 5
    """Count that a word must exceed in the training captions to be in the vocabulary; other words become UNK."""
    max_tokens: int = 20
    """Number of words after which the ids of a caption are cut off; its text stays whole."""
    image_size: int = 0
    """Shorter side to which larger images are scaled, in pixels. 0 copies every image file as it is."""
    image_quality: int = 90
    """JPEG quality of scaled images, from 1 to 100."""
    shard_images: int = 1000
    """Number of images per shard; the last shard of a split may have fewer."""
    num_decode_threads: int = 4
    """Number of threads that read and decode images ahead."""
    overwrite: bool = False
    """Replace what an earlier run wrote to the same output."""

    def __post_init__(self) -> None:
        if bool(self.images_root) == bool(self.h5):
            raise ConfigError("give --images_root FOLDER, or --h5 FILE if neuraltalk2's prepro.py made the data")
        least = {"num_val": 0, "num_test": 0, "word_count_threshold": 0, "image_size": 0}
        least |= {"max_tokens": 1, "shard_images": 1, "num_decode_threads": 1, "image_quality": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ConfigError(f"{name} is {getattr(self, name)}; give at least {bound}")
        if self.image_quality > BEST_QUALITY:
            raise ConfigError(f"image_quality is {self.image_quality}; give at most {BEST_QUALITY}")
