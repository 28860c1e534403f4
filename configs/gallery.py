"""Options of `shardtalk gallery`."""

from __future__ import annotations

from dataclasses import dataclass

from configs.errors import ConfigError


@dataclass(frozen=True)
class GalleryConfig:
    """Write an HTML page of an output: every image with its caption or error. It opens from the disk, without a server.

    On it, captions can be kept, rejected and edited; `shardtalk export --review FILE` applies what was decided.

    OUT is the folder that `shardtalk caption` wrote, or is still writing.
    """

    output: str
    """Folder that `shardtalk caption` wrote."""
    page: str = ""
    """HTML file to write, with its pictures in a folder beside it. Empty: OUT/_gallery/index.html."""
    thumbnail_size: int = 224
    """Longer side of a thumbnail, in pixels, from 16 to 4096."""
    max_images: int = 10_000
    """Maximum number of rows shown; a larger output is sampled."""
    seed: int = 0
    """Random seed of the sample."""

    def __post_init__(self) -> None:
        if not 16 <= self.thumbnail_size <= 4096:  # noqa: PLR2004
            raise ConfigError(f"thumbnail_size is {self.thumbnail_size}; it must be 16 to 4096 pixels")
        if self.max_images < 1 or self.seed < 0:
            raise ConfigError("need max_images ≥ 1 and seed ≥ 0")
        if "://" in self.page:
            raise ConfigError(f"page is {self.page}; give a file of this machine")
        if "://" in self.output and not self.page:
            raise ConfigError(f"{self.output} is not on this machine; give --page FILE for the page")
