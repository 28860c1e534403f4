"""The description of a captioning job: its captioner, and everything else that determines rows and captions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from configs.caption import CaptionConfig
from pipeline.captioners.protocol import ImageCaptioner
from pipeline.read_options import ReadOptions
from pipeline.storage.filesystems import is_remote


def read_options(config: CaptionConfig) -> ReadOptions:
    """Returns how the inputs are read."""
    root = config.images_root
    return ReadOptions(
        siblings=tuple(config.sibling_names),
        image_members=tuple(config.image_member_names),
        image_column=config.image_column,
        key_column=config.key_column,
        path_column=config.path_column,
        images_root=root if not root or is_remote(root) else str(Path(root).expanduser().absolute()),
        max_image_bytes=config.max_image_bytes,
    )


def describe(config: CaptionConfig, captioner: ImageCaptioner) -> dict[str, Any]:
    """Describes what determines rows and captions; jobs with different descriptions must not share an output."""
    return captioner.settings() | {
        "siblings": config.sibling_names,
        "reading": read_options(config).describe(),
        "format": config.format,
    }
