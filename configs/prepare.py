"""What `shardtalk prepare` can be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from configs.errors import ConfigError

BEST_QUALITY = 100


@dataclass(frozen=True)
class PrepareConfig:
    """Make training shards of captioned images: tars of images with their captions, a vocabulary and statistics."""

    captions: str
    """JSON of neuraltalk2's form (a list of file_path and captions), Karpathy's (dataset_*.json) or COCO's."""
    output: str
    """Folder for the shards, vocabulary.json and stats.json."""
    images_root: str = ""
    """Folder that the file paths in the JSON are relative to."""
    h5: str = ""
    """In place of images_root: the HDF5 file that neuraltalk2's prepro.py made, with the JSON that it made beside it.
    Its pixels, words, ids and splits are taken as they are; the options below that would change them have no effect."""
    num_val: int = 0
    """Images drawn for validation; with num_test also 0 the splits in the JSON are kept, if it has any."""
    num_test: int = 0
    """Images drawn for the test split. The rest is for training."""
    seed: int = 123
    """Of the draw."""
    tokenizer: Literal["standard", "neuraltalk2"] = "standard"
    """neuraltalk2: words, vocabulary (of all captions, not of the training captions only) and the draw of splits are
    those of its prepro.py. With --max_tokens 16 the ids are, too, but for the order of the vocabulary."""
    vocabulary: str = ""
    """Directory of a captioner that training is to start from: its words; others become UNK."""
    word_count_threshold: int = 5
    """Words seen more often than this in the training captions are in the vocabulary; the others become UNK."""
    max_tokens: int = 20
    """Longer captions lose the words after these in their ids; their text stays whole."""
    image_size: int = 0
    """Shorter side that larger images are scaled to, pixels; 0 copies every image file as it is."""
    image_quality: int = 90
    """JPEG quality of the images that are scaled, 1 to 100."""
    shard_images: int = 1000
    """Images per shard; the last of a split may have fewer."""
    threads: int = 4
    """That read and decode images ahead."""
    overwrite: bool = False
    """Replace what an earlier run wrote to the same output."""

    def __post_init__(self) -> None:
        if bool(self.images_root) == bool(self.h5):
            raise ConfigError("give --images-root FOLDER, or --h5 FILE for what prepro.py made")
        least = {"num_val": 0, "num_test": 0, "word_count_threshold": 0, "image_size": 0}
        least |= {"max_tokens": 1, "shard_images": 1, "threads": 1, "image_quality": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ConfigError(f"{name} is {getattr(self, name)}; give at least {bound}")
        if self.image_quality > BEST_QUALITY:
            raise ConfigError(f"image_quality is {self.image_quality}; give at most {BEST_QUALITY}")
