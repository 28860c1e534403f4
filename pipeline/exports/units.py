"""Divides an output into units of export, each a file or folder of its own, and reads the images of a unit again.

A unit is a range of rows of a tar, Parquet file or list, or the image files among the rows of a part. Shards are read
front to back by the readers of the caption job. A unit is written as a whole or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from pipeline.errors import InputError
from pipeline.exports.names import below, common_folder, is_file_name
from pipeline.exports.rows import Row, SelectedRows
from pipeline.filenames import from_printable
from pipeline.images.formats import plugin_for, signed_format
from pipeline.inputs.listing import list_inputs
from pipeline.output.commit_log import Commit
from pipeline.read_options import ReadOptions
from pipeline.readers.reader import read
from pipeline.shards import STANDARD_INPUT, Shard, ShardFormat, Span, extension_of, format_of
from pipeline.storage.filesystems import is_remote
from pipeline.storage.prefetch import prefetch_map

UNIT_ROWS = 10_000
"""Maximum number of rows of a unit, except for a tar that is exported to a tar."""
BATCH_ROWS = 32
THREADS = 8
"""Number of image files that are read concurrently."""
_EXTENSIONS = {"JPEG": "jpg", "JPEG2000": "jp2", "TIFF": "tif", "HEIF": "heic"}
"""Extensions of formats, where they differ from the name in lower case."""


class MissingImageError(Exception):
    """An image of a caption that is gone or has changed since; the message says which."""


@dataclass(frozen=True)
class Unit:
    """Rows that are exported together."""

    name: str
    """Path of the file or folder in the destination, without extension."""
    shard: str = ""
    """Id of a shard of many images; empty for image files."""
    path: str = ""
    """Path of that shard, as in the rows."""
    start: int = 0
    """Index of its first row in the shard."""
    stop: int = 0
    """Index behind its last row."""
    commit: Commit | None = None
    """The part that holds the rows of image files."""

    def rows(self, rows: SelectedRows) -> Iterator[Row]:
        """Yields its selected rows in order."""
        if self.commit is None:
            yield from rows.of_shard(self.shard, self.path, self.start, self.stop)
        else:
            yield from rows.of_image_files(self.commit)


def find_units(rows: SelectedRows, *, as_tars: bool) -> Iterator[Unit]:
    """Yields the units of an output.

    Image files are called `images-` and the hash in the name of their part.

    Args:
        as_tars: whether units are called like their shards: a tar `7.tar` is one unit `7`, a table `7.parquet` becomes
            `7.parquet-00000`, `7.parquet-00001`, …, in the folders below that which all shards of many images have in
            common. Otherwise units are called by their shard's id, as `datasets` takes a folder "test" for a split.
    """
    paths, taken = {shard: path for path, shard in rows.commit_log.shard_ids.items()}, set[str]()
    root = common_folder(paths[shard] for shard, _ in rows.shards())
    for shard, stop in sorted(rows.shards(), key=lambda found: paths[found[0]]):
        path = paths[shard]
        is_whole, name = as_tars and format_of(path) == ShardFormat.TAR, below(path, root)
        name = name[: -len(".tar")] if is_whole else name
        # Names that differ in case only are the same on some filesystems.
        is_free = is_file_name(name) and name.lower() not in taken
        name = name if as_tars and is_free else shard
        taken.add(name.lower())
        if is_whole:
            yield Unit(name, shard, path, 0, stop)
            continue
        for number, start in enumerate(range(0, stop, UNIT_ROWS)):
            yield Unit(f"{name}-{number:05}", shard, path, start, min(start + UNIT_ROWS, stop))
    for commit in rows.commits():
        if any(format_of(path) == ShardFormat.IMAGE for path in commit.paths.values()):
            yield Unit(f"images-{commit.file.removeprefix('part-').partition('.')[0]}", commit=commit)


@dataclass
class ImageReader:
    """Reads the images of units again.

    Args:
        options: the options by which the job read its inputs.
        allow_missing: whether captions whose image is gone or has changed are left out; otherwise MissingImageError is
            raised.
    """

    options: ReadOptions
    allow_missing: bool
    missing: int = 0
    """Number of captions that were left out."""

    def images(self, unit: Unit, rows: Iterator[Row]) -> Iterator[tuple[Row, bytes]]:
        """Yields rows of a unit with their encoded images, in order. Raises MissingImageError."""
        found = self._of_shard(unit, rows) if unit.commit is None else self._of_files(unit.commit, rows)
        for row, image in found:
            if isinstance(image, str):
                self.pass_over(row, image)
            else:
                yield row, image

    def pass_over(self, row: Row, why: str) -> None:
        """Counts a caption without its image. Raises MissingImageError unless that is allowed."""
        if not self.allow_missing:
            raise MissingImageError(f"{row['image_id']} of {row['shard']}: {why}")
        self.missing += 1

    def _of_shard(self, unit: Unit, rows: Iterator[Row]) -> Iterator[tuple[Row, bytes | str]]:
        wanted, why = next(rows, None), "it is no longer there"
        if wanted is None:
            return
        try:
            shard = find_shard(unit.path, unit.shard, self.options)
        except InputError as error:
            shard, why = None, str(error)
        spans = [Span(shard, unit.start, stop=unit.stop)] if shard else []
        with closing(read(spans, batch_size=BATCH_ROWS, options=self.options)) as tables:
            for table in tables:
                for found in table.select(["index", "image", "error_message"]).to_pylist():
                    if wanted and found["index"] == wanted["index"]:
                        yield wanted, found["error_message"] if found["image"] is None else found["image"]
                        wanted = next(rows, None)
                if wanted is None:
                    return
        while wanted:
            yield wanted, why
            wanted = next(rows, None)

    def _of_files(self, commit: Commit, rows: Iterator[Row]) -> Iterator[tuple[Row, bytes | str]]:
        ids = {path: shard for shard, path in commit.paths.items()}
        reading = partial(_read_file, ids=ids, options=self.options)
        with closing(prefetch_map(reading, rows, threads=THREADS, depth=2 * THREADS)) as found:
            yield from found


def _read_file(row: Row, ids: Mapping[str, str], options: ReadOptions) -> tuple[Row, bytes | str]:
    """Returns a row with its image, or the reason why there is none."""
    try:
        shard = find_shard(row["shard"], ids[row["shard"]], options)
    except InputError as error:
        return row, str(error)
    found = next(read([Span(shard)], batch_size=1, options=options)).to_pylist()[0]
    return row, found["error_message"] if found["image"] is None else found["image"]


def find_shard(path: str, shard_id: str, options: ReadOptions) -> Shard:
    """Returns a shard as it was when it was captioned. Raises InputError if it is gone or has changed.

    Args:
        path: its path, as in the rows.
        shard_id: its id then.
        options: the options by which the job read its inputs.
    """
    if path.rpartition("/")[2] == STANDARD_INPUT:
        raise InputError("a list from standard input cannot be read again; caption a file")
    name = path if is_remote(path) or os.path.lexists(path) else from_printable(path)
    found = next((shard for shard in list_inputs([name], options).shards if shard.id == shard_id), None)
    if found is None:
        raise InputError(f"{path} has changed since it was captioned")
    return found


def image_extension(row: Row, image: bytes) -> str:
    """Returns the extension, without a dot, of an encoded image: by its first bytes, else by its name."""
    signed, plugin = signed_format(image), plugin_for(image)
    kind = signed[0] if signed else plugin.format if plugin else ""
    return _EXTENSIONS.get(kind, kind.lower()) or extension_of(row["image_id"]) or "img"
