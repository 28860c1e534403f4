"""Compares an independent count of the input with the rows of an output, shard by shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.errors import DataError
from pipeline.filenames import printable
from pipeline.read_options import ReadOptions
from pipeline.schema import ErrorCode
from pipeline.shards import Shard, ShardFormat, extension_of
from pipeline.storage.shard_file import open_shard
from pipeline.tar.sample_rows import image_matcher
from pipeline.verification.table_census import TableContents, count_list, count_parquet
from pipeline.verification.tar_census import TarContents, count_images, key_family

SHOWN = 3
_UNUSABLE = (ErrorCode.CORRUPT_SHARD, ErrorCode.NO_IMAGE, ErrorCode.EMPTY_SHARD)


@dataclass(frozen=True, slots=True)
class RowKey:
    """The columns of a row that verification keeps."""

    index: int
    image_id: str
    error_code: str | None


def compare(shard: Shard, rows: Iterable[RowKey], options: ReadOptions) -> Iterator[str]:
    """Yields the problems of the rows of a shard.

    Args:
        shard: the shard; it is opened here unless it is an image.
        rows: all rows of the shard in the output.
        options: the options by which the job read it.
    """
    found = sorted(rows, key=lambda row: row.index)
    name = printable(shard.path).rpartition("/")[2]
    if shard.format == ShardFormat.IMAGE:
        yield from differences([shard.image_id], [row.image_id for row in found])
        return
    try:
        with open_shard(shard, skim=True) as file:
            if shard.format == ShardFormat.TAR:
                contents = count_images(file, shard.size, image_matcher(options.image_members))
                yield from compare_tar(name, contents, found)
            elif shard.format == ShardFormat.PARQUET:
                yield from compare_table(name, count_parquet(file, options), found)
            else:
                kind = extension_of(shard.data or shard.path)
                yield from compare_table(name, count_list(file, kind, options), found)
    except (DataError, OSError) as error:
        if not all(is_of_shard(row, name) for row in found):
            yield f"cannot be read now, to compare it with its rows: {error}"


def compare_tar(name: str, contents: TarContents, rows: Sequence[RowKey]) -> Iterator[str]:
    """Yields the problems of the rows of a tar.

    Args:
        name: file name of the tar.
        contents: the independent count of its contents.
        rows: all its rows in the output, in order.
    """
    images = [row.image_id for row in rows if not is_of_shard(row, name)]
    has_damage = len(images) < len(rows)
    if contents.is_cut and not has_damage:
        yield "the tar is truncated, but no row reports it"
    if contents.is_whole and not (has_damage and images):
        yield from differences(contents.ids, images)
        return
    found = Counter(map(key_family, images))
    wanted: dict[str, list[str]] = {}
    for image in map(printable, contents.images):
        wanted.setdefault(key_family(image), []).append(image)
    yield from _missing([name for key, names in wanted.items() for name in names[found[key] :]])


def compare_table(name: str, contents: TableContents, rows: Sequence[RowKey]) -> Iterator[str]:
    """Yields the problems of the rows of a Parquet file or list. Arguments are as for `compare_tar`."""
    images = [row for row in rows if not is_of_shard(row, name)]
    if len(rows) > 1 and len(rows) in contents.counts and len(contents.keys) == len(rows):
        images = list(rows)  # a list may name itself
    elif len(images) < len(rows) and rows[-1].error_code in _UNUSABLE:
        return  # the row reports that the table cannot be used, so there is nothing to compare
    if contents.counts and len(images) not in contents.counts:
        wanted = " or ".join(str(count) for count in sorted(contents.counts))
        yield f"{len(images)} rows for {wanted} images"
    elif len(contents.keys) == len(images):
        found = [row.image_id for row in images]
        pairs = zip(contents.keys, found, strict=True)  # the only entry of a list is called KEY.0
        keys = [row if key is None or row.startswith("@") or row == f"{key}.0" else key for key, row in pairs]
        yield from differences(keys, found)


def differences(wanted: Sequence[str], found: Sequence[str]) -> Iterator[str]:
    """Yields the differences between the expected image_ids and those of the rows."""
    if list(wanted) == list(found):
        return
    missing, surplus = Counter(wanted) - Counter(found), Counter(found) - Counter(wanted)
    yield from _missing(list(missing.elements()))
    if surplus:
        yield f"{_named(list(surplus.elements()), 'row')} not in the input"
    if not missing and not surplus:
        yield "the rows are in another order than the images of the input"


def is_of_shard(row: RowKey, name: str) -> bool:
    """Returns whether a row reports an unreadable place of its shard, or the whole shard."""
    return row.error_code is not None and (row.image_id == name or row.image_id.startswith(f"{name}@"))


def _missing(names: list[str]) -> Iterator[str]:
    if names:
        yield f"{_named(names, 'image')} without a row"


def _named(names: list[str], what: str) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)} {what}{'s' if len(names) > 1 else ''} ({', '.join(map(repr, names[:SHOWN]))}{more})"
