"""What `shardtalk gallery` can be told."""

from __future__ import annotations

from dataclasses import dataclass

from configs.errors import ConfigError


@dataclass(frozen=True)
class GalleryConfig:
    """Write a page to look at an output: every image with its caption or its error. Opens from the disk, no server.

    OUT is the folder that `shardtalk caption` wrote, or is still writing.
    """

    output: str
    """Folder that `shardtalk caption` wrote."""
    page: str = ""
    """HTML file to write, with its pictures in a folder beside it; empty: OUT/_gallery/index.html."""
    thumbnail_size: int = 224
    """Longest side of a thumbnail, in pixels."""
    max_images: int = 10_000
    """Rows shown; of an output with more, a sample."""
    seed: int = 0
    """Of the sample."""

    def __post_init__(self) -> None:
        if not 16 <= self.thumbnail_size <= 4096:  # noqa: PLR2004
            raise ConfigError(f"thumbnail_size is {self.thumbnail_size}; it must be 16 to 4096 pixels")
        if self.max_images < 1 or self.seed < 0:
            raise ConfigError("need max_images ≥ 1 and seed ≥ 0")
        if "://" in self.page:
            raise ConfigError(f"page is {self.page}; give a file of this machine")
        if "://" in self.output and not self.page:
            raise ConfigError(f"{self.output} is not on this machine; give --page FILE for the page")
