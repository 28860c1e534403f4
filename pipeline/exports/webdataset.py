"""Exports tars of images and captions, as WebDataset reads them; the same rows give the same bytes.

A tar of the input is copied, sample by sample, with a member added for each caption. Members keep their names, order
and contents; links become the files that they lead to, sparse files are unpacked, and damage is left out. Image files,
Parquet files and lists are packed into new tars, whose samples are numbered and have a JSON member that tells the rest.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import chain, groupby
from typing import BinaryIO

from pipeline.errors import DataError, InputError, OutputError
from pipeline.exports.rows import Row, confidence_of
from pipeline.exports.units import ImageReader, Unit, find_shard, image_extension
from pipeline.filenames import printable
from pipeline.read_options import ReadOptions
from pipeline.schema import CONFIDENCE
from pipeline.shards import Shard, ShardFormat, format_of
from pipeline.storage.folder import Folder
from pipeline.storage.shard_file import open_shard
from pipeline.tar.elements import Member, read_member
from pipeline.tar.links import LinkResolver
from pipeline.tar.rows import MAX_BUFFERED_BYTES, file_name
from pipeline.tar.sample_rows import IdAssigner, image_matcher, sample_rows
from pipeline.tar.sample_rows import Row as TarRow
from pipeline.tar.samples import Sample, group_samples
from pipeline.tar.walk import walk

METADATA = ("image_id", "shard", "index", "caption", "log_prob", "num_tokens", "width", "height")
"""Columns in the JSON members of new tars, beside the confidence."""


def write_tar(folder: Folder, unit: Unit, rows: Iterator[Row], images: ImageReader, *, extension: str) -> int:
    """Writes the tar of a unit; returns the number of captions in it. A unit without captions has no tar.

    Args:
        folder: the destination.
        rows: the selected rows of the unit.
        extension: extension of the members with captions, without its first dot.

    Raises MissingImageError; OutputError if a sample has a member of that extension already.
    """
    if format_of(unit.path) == ShardFormat.TAR:
        contents = _copied(unit, rows, images, extension)
    else:
        contents = _packed(unit, rows, images, extension)
    first = next(contents, None)
    if first is None:
        return 0
    with (
        folder.writer(f"{unit.name}.tar") as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        count = 0
        for name, size, data in chain([first], contents):
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, data)
            count += isinstance(data, _Caption)
        return count


class _Caption(io.BytesIO):
    """The contents of a member with a caption."""


_Entry = tuple[str, int, BinaryIO]
"""Name, size in bytes and contents of a member."""


def _entry(name: str, data: bytes) -> _Entry:
    return name, len(data), io.BytesIO(data)


def _caption(name: str, row: Row) -> _Entry:
    data = row["caption"].encode()
    return name, len(data), _Caption(data)


def _packed(unit: Unit, rows: Iterator[Row], images: ImageReader, extension: str) -> Iterator[_Entry]:
    """Yields the members of a new tar."""
    for number, (row, image) in enumerate(images.images(unit, rows), unit.start):
        record = {name: row[name] for name in METADATA} | {CONFIDENCE: confidence_of(row)}
        yield _entry(f"{number:09}.{image_extension(row, image)}", image)
        yield _entry(f"{number:09}.json", json.dumps(record, ensure_ascii=False).encode())
        yield _caption(f"{number:09}.{extension}", row)


def _copied(unit: Unit, rows: Iterator[Row], images: ImageReader, extension: str) -> Iterator[_Entry]:
    """Yields the members of those samples of a tar that have a selected caption, and the captions."""
    wanted = next(rows, None)
    if wanted is None:
        return
    try:
        shard = find_shard(unit.path, unit.shard, images.options)
    except InputError as error:
        for row in chain([wanted], rows):
            images.pass_over(row, str(error))
        return
    captioned = {wanted["index"]: wanted}
    with open_shard(shard) as file, closing(LinkResolver(shard)) as links:
        for group in _samples(shard, file, images.options):
            while wanted and wanted["index"] <= group[-1].index:
                captioned[wanted["index"]] = wanted
                wanted = next(rows, None)
            found = {row.index: captioned.pop(row.index) for row in group if row.index in captioned}
            sample = group[0].sample
            if found and sample is not None:
                yield from _members(sample, links, group, found, images)
                yield from _captions(sample, group, found, extension, unit.path)
            if wanted is None:
                return
    for row in chain([wanted], rows):
        images.pass_over(row, "it is no longer there")


def _samples(shard: Shard, file: BinaryIO, options: ReadOptions) -> Iterator[list[TarRow]]:
    """Yields the rows of each sample, with its members read while the walk passes them, if they are not too large."""

    def read_ahead(member: Member, buffered_bytes: int) -> bytes | None:
        fits = member.kind == "file" and buffered_bytes + member.unpacked_bytes <= MAX_BUFFERED_BYTES
        try:
            return read_member(file, member) if fits else None
        except DataError:  # raised again once the member is needed
            return None

    elements = walk(file, size=shard.size)
    is_image, ids = image_matcher(options.image_members), IdAssigner()
    rows = sample_rows(group_samples(elements, read_ahead), is_image=is_image, name=file_name(shard), ids=ids)
    for _, group in groupby(rows, key=lambda row: row.first):
        yield list(group)


def _members(
    sample: Sample, links: LinkResolver, group: Sequence[TarRow], found: dict[int, Row], images: ImageReader
) -> Iterator[_Entry]:
    """Yields the members of a sample; those that cannot be read are left out unless they are captioned images."""
    rows = {row.extension: found[row.index] for row in group if row.index in found}
    for extension, member in sample.members.items():
        data = sample.files[extension]
        try:
            yield _entry(member.name, data) if data is not None else _late(member, links)
        except DataError as error:
            if extension in rows:
                images.pass_over(rows[extension], error.message)
                del found[next(row.index for row in group if row.extension == extension)]


def _late(member: Member, links: LinkResolver) -> _Entry:
    """Returns a member that was not read ahead, to be read in pieces unless it is sparse. Raises DataError."""
    name = member.name
    member = member if member.is_file else links.resolve(member)
    if member.sparse or member.kind != "file":
        return _entry(name, read_member(links.file, member))
    links.file.seek(member.data)
    return name, member.size, links.file


def _captions(
    sample: Sample, group: Sequence[TarRow], found: dict[int, Row], extension: str, path: str
) -> Iterator[_Entry]:
    """Yields the captions of a sample. Raises OutputError if the sample has a member of such a name."""
    taken = {member.name.lower() for member in sample.members.values()}
    names = caption_names([sample.members[row.extension].name for row in group])
    for row, stem in zip(group, names, strict=True):
        name = f"{stem}.{extension}"
        if row.index in found:
            if name.lower() in taken:
                raise OutputError(
                    f"{printable(name)!r} is in {path} already; give another --extension than {extension}, such as"
                    f" caption.{extension}"
                )
            yield _caption(name, found[row.index])


def caption_names(images: Sequence[str]) -> list[str]:
    """Returns the names, without extension, of the captions of the images of a sample.

    That of a single image is the sample's key: `a/22.05.jpg` has `a/22`. Of several, each has the image's name without
    the last extension if that is unique, otherwise the whole name.
    """
    if len(images) == 1:
        folder, slash, base = images[0].rpartition("/")
        leading = base[: len(base) - len(base.lstrip("."))]
        return [f"{folder}{slash}{leading}{base[len(leading) :].partition('.')[0]}"]
    stems = Counter(map(_stem, images))
    return [_stem(image) if stems[_stem(image)] == 1 else image for image in images]


def _stem(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return f"{folder}{slash}{base.rpartition('.')[0] or base}"
