"""The options by which shards are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import DataError
from pipeline.schema import ErrorCode

RULES_VERSION = 3
"""Version of the rules by which inputs become rows: a job goes on only under those it was begun under."""

MAX_IMAGE_BYTES = 512 << 20
MAX_SIBLING_BYTES = 16 << 20
"""Of a text beside an image; a larger one is left out."""
LARGE_SIBLINGS = "siblings of more than 16 MiB"
"""What they are counted as."""
_NAMES = ("image_column", "key_column", "path_column", "images_root")
"""The options that are text and decide what the rows are."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How shards are read. Travels to the workers as it is."""

    siblings: tuple[str, ...] = ()
    """Extensions of what is kept beside an image: members of its sample, files of its name. In a Parquet file,
    columns."""
    image_members: tuple[str, ...] = ()
    """Names, or ends of names, of a tar's members that are images; empty: all that have an image's extension."""
    image_column: str = ""
    """Of Parquet files: the column of images, dotted within structs; empty: found by kind and name."""
    key_column: str = ""
    """Of Parquet files and lists: the column that names the rows; empty: found by name."""
    path_column: str = ""
    """Of lists with columns: that of paths or URLs; empty: found by name."""
    images_root: str = ""
    """Folder to which paths in Parquet files and lists are relative, and outside of which no path of a Parquet file
    may lead; empty: the folder of the file itself."""
    max_image_bytes: int = MAX_IMAGE_BYTES
    """A larger image is not read."""

    def describe(self) -> dict[str, Any]:
        """What decides which rows there are and what they are called, as JSON, for the record of the job."""
        names = {name: getattr(self, name) for name in _NAMES}
        members = list(self.image_members)
        return {"rules": RULES_VERSION, "image_members": members, "max_image_bytes": self.max_image_bytes, **names}

    @classmethod
    def from_job(cls, job: Mapping[str, Any]) -> ReadOptions:
        """As far as the record of a job says it."""
        reading = job.get("reading") or {}
        names: dict[str, Any] = {name: str(reading.get(name, "")) for name in _NAMES}
        return cls(image_members=tuple(reading.get("image_members", ())), **names)


DEFAULTS = ReadOptions()


def check_size(num_bytes: int, max_bytes: int) -> None:
    """Raises DataError for an image of more bytes than are read."""
    if num_bytes > max_bytes:
        raise DataError(ErrorCode.TOO_LARGE, f"{num_bytes:,} bytes; max_image_bytes is {max_bytes:,}")
