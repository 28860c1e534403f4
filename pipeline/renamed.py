"""Finds inputs that are in the output already under another name: they would be captioned twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from pipeline.inputs import Shard
from pipeline.ledger import Ledger
from pipeline.names import printable


def find_renamed(ledger: Ledger, shards: Iterable[Shard]) -> Iterator[tuple[str, str]]:
    """Yields the names, now and in the output, of each shard that is there under another one.

    It is the same if the last part of its name (of an image: its image_id), its size and its time of change are, and
    the other name is not among the inputs any more. So are files of a folder that was moved, is mounted elsewhere, or
    is reached by a link. Their rows have the names of then, and a copy with another time of change is another file.

    Args:
        shards: all of the job.
    """
    listed = list(shards)
    new = [shard for shard in listed if printable(shard.path) not in ledger.shard_of]
    gone = ledger.shard_of.keys() - {printable(shard.path) for shard in listed} if new else set()
    endings: dict[int, dict[str, list[str]]] = {}
    for shard in new if gone else ():
        parts = shard.image_id.count("/") + 1
        if parts not in endings:
            endings[parts] = _by_ending(gone, parts)
        for path in endings[parts].get(_ending(printable(shard.path), parts), ()):
            if replace(shard, path=path).id == ledger.shard_of[path]:
                yield printable(shard.path), path


def _by_ending(paths: Iterable[str], parts: int) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in paths:
        found.setdefault(_ending(path, parts), []).append(path)
    return found


def _ending(path: str, parts: int) -> str:
    return "/".join(path.split("/")[-parts:])
