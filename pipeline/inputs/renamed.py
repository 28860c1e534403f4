"""Finds inputs that the output already holds under another path, and that would be captioned twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from pipeline.errors import OutputError
from pipeline.filenames import printable
from pipeline.shards import Shard

MAX_SAME_NAME = 100
"""Maximum number of files compared by their last path component alone."""


def check_not_renamed(shard_ids: Mapping[str, str], shards: Iterable[Shard]) -> None:
    """Raises OutputError if the output holds some of the inputs under another path.

    Args:
        shard_ids: shard id by path of all shards in the output.
        shards: all inputs.
    """
    found = list(find_renamed(shard_ids, shards))
    if found:
        now, then = found[0]
        others = f", and so it is with {len(found) - 1} others" if len(found) > 1 else ""
        raise OutputError(
            f"{now} is {then} in this output (same size and time of change){others}: it would be captioned twice;"
            " give the inputs by their old paths (links there suffice), or another output"
        )


def find_renamed(shard_ids: Mapping[str, str], shards: Iterable[Shard]) -> Iterator[tuple[str, str]]:
    """Yields the path now and the path in the output of each shard that was renamed.

    A shard counts as renamed if last path component, size and time of change agree, and the old path is no longer
    among the inputs: its folder was moved, is mounted elsewhere, or is reached by a link. A copy with another time of
    change is a different file.
    """
    listed = list(shards)
    names = [printable(shard.path) for shard in listed]
    new = [shard for shard, name in zip(listed, names, strict=True) if name not in shard_ids]
    gone = shard_ids.keys() - set(names) if new else set()
    endings: dict[int, dict[str, list[str]]] = {}
    for shard in new if gone else ():
        for parts in sorted({1, shard.image_id.count("/") + 1}):
            if parts not in endings:
                endings[parts] = _by_ending(gone, parts)
            ending = _ending(shard.path, parts)
            paths = endings[parts].get(printable(ending), [])
            if parts == 1 and "/" in shard.image_id and len(paths) > MAX_SAME_NAME:
                continue
            then = next((path for path in paths if _was(shard, path, ending) == shard_ids[path]), None)
            if then is not None:
                yield printable(shard.path), then
                break


def _was(shard: Shard, path: str, ending: str) -> str:
    """Returns the shard's id if it had this path; bytes that are not text come from the shard, as logs hold text."""
    return replace(shard, path=path.removesuffix(printable(ending)) + ending).id


def _by_ending(paths: Iterable[str], parts: int) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in paths:
        found.setdefault(_ending(path, parts), []).append(path)
    return found


def _ending(path: str, parts: int) -> str:
    return "/".join(path.split("/")[-parts:])
