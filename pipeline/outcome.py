"""The options of a reader, and what it finds for each row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.errors import DataError


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How shards are read. Travels to the workers as it is."""

    siblings: tuple[str, ...] = ()
    """Extensions of what is kept beside an image: members of its sample, files of its name. In a Parquet file,
    columns."""


DEFAULTS = ReadOptions()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found where a row should be."""

    image_id: str
    next_offset: int
    """Byte offset at which the next row begins."""
    image: bytes | DataError
    siblings: Mapping[str, bytes] = field(default_factory=dict)
    """What lies beside the image, by extension."""
