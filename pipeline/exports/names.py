"""Names of exported files. They are unique, lie below the destination, and can exist on any filesystem and store."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from itertools import takewhile

from pipeline.exports.rows import Row
from pipeline.filenames import from_printable
from pipeline.output.commit_log import CommitLog
from pipeline.shards import ShardFormat, format_of

MAX_COMPONENT_BYTES = 200
"""Maximum size of a part of a path, in UTF-8; filesystems allow 255 bytes, and an extension and `.tmp` are added."""
MAX_NAME_BYTES = 900
"""Maximum size of a name, in UTF-8; S3 allows 1,024 bytes, and the destination comes before it."""


class SidecarNames:
    r"""Names the file that belongs to an image by the image_id, so that it lies beside the image or in a mirror folder.

    - `a/dog.jpg` has `a/dog.txt`. Where `a/dog.png` is an image, too, they have `a/dog.jpg.txt` and `a/dog.png.txt`.
    - Image `0001` of `shards/7.tar` has `7.tar/0001.txt`, below the folder that all tars, Parquet files and lists of
      the output have in common. Rows of Parquet files and lists, whose ids need not be unique, are called by number.
    - An id that cannot be a file name (`../x`, a URL, too long) is replaced by a hash of the row's shard and index.

    Args:
        extension: extension of the files, without its first dot.
        as_bytes: whether bytes of a name that are not UTF-8, written as `\xNN` in rows, become bytes again.
    """

    def __init__(self, commit_log: CommitLog, *, extension: str, as_bytes: bool) -> None:
        self._extension, self._as_bytes, self._paths = extension, as_bytes, commit_log.shard_ids
        self.root = common_folder(path for path in commit_log.shard_ids if format_of(path) != ShardFormat.IMAGE)
        seen = set[str]()
        self._shared = set[str]()
        """Paths without extension of which there is more than one image."""
        for path in commit_log.shard_ids:
            if format_of(path) == ShardFormat.IMAGE:
                stem = os.path.splitext(path)[0]  # noqa: PTH122 - of millions of paths and URLs
                (self._shared if stem in seen else seen).add(stem)

    def name(self, row: Row) -> str:
        """Returns the name of the file of a row, relative to the destination."""
        kind = format_of(row["shard"])
        if kind == ShardFormat.IMAGE:
            stem = os.path.splitext(row["shard"])[0]  # noqa: PTH122
            is_taken = stem in self._shared or stem in self._paths  # `dog.jpg` is the name of another image, too
            found = row["image_id"] if is_taken else os.path.splitext(row["image_id"])[0]  # noqa: PTH122
        else:
            inside = row["image_id"] if kind == ShardFormat.TAR else f"{row['index']:09}"
            found = f"{below(row['shard'], self.root)}/{inside}"
        if not is_file_name(found):
            found = hashlib.sha256(f"{row['shard']}\n{row['index']}".encode()).hexdigest()[:16]
        return f"{from_printable(found) if self._as_bytes else found}.{self._extension}"


def common_folder(paths: Iterable[str]) -> str:
    """Returns the folder, as path or URL, that holds all paths; empty if there is none."""
    common: list[str] | None = None
    for path in paths:
        folders = path.split("/")[:-1]
        pairs = zip(folders if common is None else common, folders, strict=False)
        common = [folder for folder, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]
    return "/".join(common or [])


def below(path: str, folder: str) -> str:
    """Returns a path or URL relative to a folder that holds it; to nothing if that is empty."""
    return path[len(folder) + 1 :] if folder else path.replace("://", "/").lstrip("/")


def is_file_name(name: str) -> bool:
    """Returns whether a relative path stays below its folder and can exist on any filesystem and store."""
    parts = name.split("/")
    return (
        "\0" not in name
        and not {"", ".", ".."}.intersection(parts)
        and max(len(part.encode()) for part in parts) <= MAX_COMPONENT_BYTES
        and len(name.encode()) <= MAX_NAME_BYTES
    )
