"""The options by which shards are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import DataError
from pipeline.schema import ErrorCode

RULES_VERSION = 3
"""Version of the rules that turn inputs into rows. A job can only be resumed under the version it was begun with."""

MAX_IMAGE_BYTES = 512 << 20
MAX_SIBLING_BYTES = 16 << 20
"""Maximum size of a sibling in bytes; a larger one is left out."""
LARGE_SIBLINGS = "siblings of more than 16 MiB"
"""The label under which too large siblings are counted as ignored."""
_NAMES = ("image_column", "key_column", "path_column", "images_root")
"""The text options that determine the rows."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """The options by which shards are read; sent to the workers unchanged."""

    siblings: tuple[str, ...] = ()
    """What is kept beside each image: in tars and folders extensions of files with its name, in Parquet files and
    lists columns."""
    image_members: tuple[str, ...] = ()
    """Names, or their last extensions, of the members of a tar that are images; empty: all with an image extension."""
    image_column: str = ""
    """Column of a Parquet file that holds the images, dotted within structs; empty: found by type and name."""
    key_column: str = ""
    """Column of a Parquet file or list that holds the image_id; empty: found by name."""
    path_column: str = ""
    """Column of a list that holds paths or URLs; empty: found by name."""
    images_root: str = ""
    """Folder to which paths in Parquet files and lists are relative; paths in Parquet files may not lead outside of
    it. Empty: the folder of the Parquet file or list."""
    max_image_bytes: int = MAX_IMAGE_BYTES
    """Maximum size of an encoded image in bytes; a larger one is an error row."""

    def describe(self) -> dict[str, Any]:
        """Returns the options that determine the rows and their image_ids, as JSON for the job record."""
        names = {name: getattr(self, name) for name in _NAMES}
        members = list(self.image_members)
        return {"rules": RULES_VERSION, "image_members": members, "max_image_bytes": self.max_image_bytes, **names}

    @classmethod
    def from_job(cls, job: Mapping[str, Any]) -> ReadOptions:
        """Restores the options from a job record; options missing there keep their defaults."""
        reading = job.get("reading") or {}
        names: dict[str, Any] = {name: str(reading.get(name, "")) for name in _NAMES}
        max_image_bytes = int(reading.get("max_image_bytes", MAX_IMAGE_BYTES))
        return cls(image_members=tuple(reading.get("image_members", ())), max_image_bytes=max_image_bytes, **names)


DEFAULTS = ReadOptions()


def check_size(num_bytes: int, max_bytes: int) -> None:
    """Raises DataError for an image of more than `max_bytes` bytes."""
    if num_bytes > max_bytes:
        raise DataError(ErrorCode.TOO_LARGE, f"{num_bytes:,} bytes; max_image_bytes is {max_bytes:,}")
