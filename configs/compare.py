"""Options of `shardtalk compare`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from configs.errors import ConfigError

_OUTPUTS = 2


@dataclass(frozen=True)
class CompareConfig:
    """Compare two outputs of the same images: how many captions differ, and by how much.

    A and B are folders that `shardtalk caption` wrote, with two captioners say. With --references, CIDEr tells which
    captions are better, and a paired bootstrap over the images whether that may be chance.
    """

    paths: list[str] = field(default_factory=list)
    """The two folders that `shardtalk caption` wrote."""
    references: str = ""
    """JSON file of reference captions in neuraltalk2's, Karpathy's or COCO's format."""
    split: Literal["", "train", "val", "test"] = ""
    """Split of the references to score. Empty: all references."""
    match: Literal["auto", "file", "id"] = "auto"
    """How images are matched with the references: by file name, by id, or by either."""
    output: str = ""
    """JSON file for the numbers. Empty: none is written."""
    page: str = ""
    """HTML file that shows the images with both captions, those that differ first. Empty: none is written."""
    max_images: int = 1_000
    """Maximum number of images on the page."""
    thumbnail_size: int = 224
    """Longer side of a thumbnail, in pixels, from 16 to 4096."""
    resamples: int = 1_000
    """Number of samples that the bootstrap draws."""
    seed: int = 0
    """Random seed of the bootstrap."""
    timeout_s: float = 3600.0
    """Maximum number of seconds that Java may take for the tokenizer of published scores."""

    def __post_init__(self) -> None:
        if len(self.paths) != _OUTPUTS:
            raise ConfigError(f"need two outputs, A and B, and {len(self.paths)} are given")
        if not 16 <= self.thumbnail_size <= 4096:  # noqa: PLR2004
            raise ConfigError(f"thumbnail_size is {self.thumbnail_size}; it must be 16 to 4096 pixels")
        if self.max_images < 1 or self.resamples < 1 or self.seed < 0 or self.timeout_s <= 0:
            raise ConfigError("need max_images ≥ 1, resamples ≥ 1, seed ≥ 0 and timeout_s > 0")
        if "://" in self.page:
            raise ConfigError(f"page is {self.page}; give a file of this machine")
