"""Checks and claims the destination of an export: outside of the images, and of this export alone.

A folder of exports holds a record, `_export.json`, of what is exported; another export is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from pipeline.errors import OutputError
from pipeline.exports.rows import Row, SelectedRows
from pipeline.exports.tables import EXPORTS
from pipeline.filenames import from_printable
from pipeline.output.commit_log import CommitLog
from pipeline.output.part_reader import read_part
from pipeline.shards import ShardFormat, format_of
from pipeline.storage.filesystems import is_remote
from pipeline.storage.folder import Folder

RECORD = "_export.json"


def check_outside_output(out: Folder, destination: str) -> None:
    """Raises OutputError if a destination lies inside the output, where readers would take it for rows."""
    place, output = real(destination), real(out.url)
    if is_below(place, output) and not is_below(place, f"{output}/{EXPORTS}"):
        raise OutputError(f"{destination} lies inside the output {out.url}; give a place outside, or in its {EXPORTS}")


def check_is_no_input(commit_log: CommitLog, destination: str) -> None:
    """Raises OutputError for a file that is one of the inputs, a list say."""
    place, ending = real(destination), destination.rpartition("/")[2]
    if any(real(path) == place for path in commit_log.shard_ids if path.endswith(ending)):
        raise OutputError(f"{destination} is an input of this output; give another file")


class FolderDestination:
    """The folder that an export is written to.

    Args:
        url: the folder.
        rows: the rows that are exported.
        may_be_input: whether it may be the folder of images that was captioned.

    Raises OutputError for a folder inside the input or the output.
    """

    def __init__(self, url: str, rows: SelectedRows, *, may_be_input: bool) -> None:
        self.folder = Folder(url)
        self._real = real(self.folder.url)
        check_outside_output(rows.folder, self.folder.url)
        first = _first_image_root(rows)
        self.is_input = may_be_input and first is not None and real(first) == self._real
        """Whether it is the folder of images that was captioned, so that files are written beside images."""
        holders = [path for path in rows.commit_log.shard_ids if format_of(path) != ShardFormat.IMAGE]
        searched = (
            path for path in holders if format_of(path) != ShardFormat.LIST
        )  # folders are not searched for lists
        for folder in {path.rpartition("/")[0] for path in searched}:
            if is_below(self._real, real(folder)):
                raise OutputError(f"{url} lies inside the input {folder}; give a folder outside")
        if self.is_input and holders:
            raise OutputError(f"{holders[0]} holds many images, which no file can lie beside; give a folder outside")
        self._check_root(first)

    def checked(self, rows: list[Row]) -> list[Row]:
        """Returns rows that may be written to it. Raises OutputError if it lies inside the input folder of one."""
        for root in set(map(_root, rows)):
            self._check_root(root)
        return rows

    def _check_root(self, root: str | None) -> None:
        if root is None:
            return
        if self.is_input and real(root) != self._real:
            raise OutputError(f"the input is not only {self.folder.url} but {root}, too; give a folder outside")
        if not self.is_input and is_below(self._real, real(root)):
            raise OutputError(f"{self.folder.url} lies inside the input {root}; give a folder outside")

    def claim(self, export: Mapping[str, Any]) -> None:
        """Records an export, or checks that it is the one recorded. Raises OutputError if it is not.

        Args:
            export: what determines the files, as JSON.
        """
        if self.is_input:
            return
        if self.folder.exists(RECORD):
            try:
                before = dict(json.loads(self.folder.read(RECORD)))
            except (TypeError, ValueError) as error:
                raise OutputError(f"{self.folder.url}/{RECORD} is damaged: {error}") from error
            names = (name for name in export if before.get(name) != export[name])
            differences = [f"{name} was {before.get(name)!r} and is {export[name]!r}" for name in names]
            if differences:
                raise OutputError(
                    f"{self.folder.url} holds another export: {'; '.join(differences)}; give another folder"
                )
            return
        names = (name for name in self.folder.names() if name != f".{RECORD}.tmp")
        found = [*names, *self.folder.folders("")]
        if found:
            raise OutputError(f"{self.folder.url} holds other files, such as {found[0]}; give an empty or new folder")
        self.folder.write(RECORD, _encode({**export, "finished": False}))

    def finish(self, export: Mapping[str, Any]) -> None:
        """Records that the export is complete."""
        if not self.is_input:
            self.folder.write(RECORD, _encode({**export, "finished": True}))


def fingerprint(commit_log: CommitLog) -> str:
    """Returns a hash of the committed parts, which differs once an output has other rows."""
    parts = sorted((commit.file, commit.file_sha256) for commit in commit_log.commits)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def real(path: str) -> str:
    """Returns a local path as text, absolute and with links resolved; a URL without a slash at its end."""
    path = path.rstrip("/") or "/"
    if is_remote(path):
        return path
    return os.path.realpath(path if os.path.lexists(path) else from_printable(path))


def is_below(path: str, folder: str) -> bool:
    """Returns whether a path is a folder or lies below it, given as `real` does."""
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")


def _encode(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()


def _root(row: Row) -> str | None:
    """Returns the input folder of an image file; None for other rows."""
    shard, image_id = row["shard"], row["image_id"]
    is_relative = format_of(shard) == ShardFormat.IMAGE and shard.endswith(f"/{image_id}")
    return shard[: -len(image_id) - 1] if is_relative else None


def _first_image_root(rows: SelectedRows) -> str | None:
    for commit in rows.commits():
        if any(format_of(path) == ShardFormat.IMAGE for path in commit.paths.values()):
            found = map(_root, read_part(rows.folder, commit.file).select(["shard", "image_id"]).to_pylist())
            return next((root for root in found if root is not None), None)
    return None
