"""The options of a reader, and what it finds for each row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import DataError

RULES = 2
"""Version of the rules by which inputs become rows: a job goes on only under those it was begun under."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How shards are read. Travels to the workers as it is."""

    siblings: tuple[str, ...] = ()
    """Extensions of what is kept beside an image: members of its sample, files of its name. In a Parquet file,
    columns."""
    image_members: tuple[str, ...] = ()
    """Names, or ends of names, of a tar's members that are images; empty: all that have an image's extension."""
    max_image_bytes: int = 512 << 20
    """A larger image is not read."""

    def describe(self) -> dict[str, Any]:
        """What decides which rows there are and what they are called, as JSON, for the record of the job."""
        return {"rules": RULES, "image_members": list(self.image_members)}

    @classmethod
    def of_job(cls, job: Mapping[str, Any]) -> ReadOptions:
        """As far as the record of a job says it."""
        reading = job.get("reading") or {}
        return cls(image_members=tuple(reading.get("image_members", ())))


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
    ignored: Mapping[str, int] = field(default_factory=dict)
    """Files of the shard up to the next row that are no images and lie beside none, by kind."""
