"""Partitions: several drivers write one output, each the rows of its own shards.

A partition's driver has a lease, epochs, commit records, a plan and a manifest of its own, in its control folder
(`pipeline.output.layout`); its parts lie beside those of the others. What all must agree on is the last epoch of the
output: its claim is created exclusively, so a driver of the whole output came before it, and is dead, or never writes;
and so is its snapshot, by which the first driver fixes the job and the `Division`. A shard therefore belongs to one
partition, however the input changes later. The output is complete once all partitions have finished the same input.
"""

from __future__ import annotations

import hashlib
import heapq
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from configs.partition import Partition
from pipeline.errors import OutputError
from pipeline.output import epochs, lease
from pipeline.output.commit_log import COMMITS, CommitLog
from pipeline.output.epochs import Epoch, EpochSnapshot
from pipeline.output.job_record import check_same_job
from pipeline.output.layout import MANIFEST, PART, partition_of
from pipeline.output.manifest import is_of, read_manifest, write_manifest
from pipeline.shards import STANDARD_INPUT, Shard, ShardFormat
from pipeline.storage.filesystems import is_remote
from pipeline.storage.folder import Folder

SHOWN = 8
"""Maximum number of partitions named in a message."""


@dataclass(frozen=True)
class Division:
    """How the shards of an output are divided among its partitions."""

    count: int
    """Number of partitions."""
    inputs: list[str]
    """The inputs of the first driver."""
    assigned: dict[str, int]
    """Number of the partition of each tar, table and list that the first driver found, by `_key`. Other shards belong
    to a partition by their key."""
    files: list[int]
    """Number of shards of each partition that the first driver found."""
    bytes: list[int]
    """Size of these shards."""

    @property
    def partitions(self) -> list[Partition]:
        """All partitions, in order."""
        return [Partition(number, self.count) for number in range(1, self.count + 1)]

    def number_of(self, shard: Shard) -> int:
        """Returns the number of a shard's partition. It depends on the path alone, as the file may change."""
        key = _key(shard)
        return self.assigned.get(key) or int(key, 16) % self.count + 1

    def shards_of(self, partition: Partition, shards: Iterable[Shard]) -> list[Shard]:
        """Returns those of the shards that belong to a partition."""
        return [shard for shard in shards if self.number_of(shard) == partition.number]


def divide(count: int, inputs: Sequence[str], shards: Sequence[Shard]) -> Division:
    """Divides shards: tars, tables and lists by their size, the largest first; images, which may be many, by a hash."""
    assigned, loads = dict[str, int](), [(0, number) for number in range(1, count + 1)]
    of_many_images = (shard for shard in shards if shard.format != ShardFormat.IMAGE)
    for shard in sorted(of_many_images, key=lambda shard: -shard.size):
        load, number = loads[0]
        assigned[_key(shard)] = number
        heapq.heapreplace(loads, (load + max(1, shard.size), number))
    division = Division(count, list(map(_absolute, inputs)), assigned, [0] * count, [0] * count)
    for shard in shards:
        number = division.number_of(shard)
        division.files[number - 1] += 1
        division.bytes[number - 1] += max(0, shard.size)
    return division


def _key(shard: Shard) -> str:
    """Returns a hash of the path in 12 hexadecimal digits. Two shards of one key belong to the same partition."""
    return hashlib.sha256(shard.path.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _absolute(name: str) -> str:
    return name if is_remote(name) or name == STANDARD_INPUT else str(Path(name).expanduser().absolute())


def read_division(folder: Folder) -> Division | None:
    """Reads the division of an output; returns None if it has none. Raises OutputError if it is damaged."""
    snapshot = epochs.read_snapshot(folder)
    try:
        return Division(**snapshot.division) if snapshot and snapshot.division else None
    except TypeError as error:
        raise OutputError(f"{folder.url}/{epochs.EPOCHS} is damaged: {error}") from error


def find_division(folder: Folder, partition: Partition, inputs: Sequence[str], shards: Sequence[Shard]) -> Division:
    """Returns the recorded division of an output, or one of these shards, to be recorded.

    Raises OutputError if the output has another number of partitions, or none, or entirely different inputs.
    """
    found = read_division(folder)
    if found is None:
        _check_divisible(folder)
        return divide(partition.count, inputs, shards)
    _check_count(folder, found.count, partition.count)
    if set(found.inputs).isdisjoint(map(_absolute, inputs)):
        raise OutputError(
            f"the partitions of {folder.url} caption {', '.join(found.inputs[:3])}; give all of them the same inputs"
        )
    return found


def record_division(folder: Folder, division: Division, job: Mapping[str, Any]) -> Division:
    """Records a division, unless another driver was faster; returns that of the output, which never changes.

    Raises OutputError if the other driver is one of the whole output, or of another job or number of partitions.
    """
    while not (epoch := epochs.newest_claim(folder)).partitions:
        lease.wait_until_free(folder)
        _check_divisible(folder)
        epoch = Epoch.of_partitions(epoch.number + 1, division.count)
        _establish(folder, epoch.claim_file, epoch.driver.encode())
        epochs.give_back_to_partitions(folder, epoch)
    _check_count(folder, epoch.partitions, division.count)
    _establish(folder, epoch.snapshot_file, EpochSnapshot(epoch.id, frozenset(), job, asdict(division)).encode())
    if epochs.newest_claim(folder) != epoch:  # overwritten, where files cannot be created exclusively
        folder.remove(epoch.snapshot_file)
        raise OutputError(f"{folder.url} was taken over by another driver, which was slower")
    epochs.remove_older(folder, epoch)
    check_same_job(folder, CommitLog(), job)
    return read_division(folder) or division


def _check_divisible(folder: Folder) -> None:
    if CommitLog.load(folder).commits:
        raise OutputError(f"{folder.url} was begun without --partition; go on without it, or give another output")


def _check_count(folder: Folder, count: int, given: int) -> None:
    if given != count:
        raise OutputError(f"{folder.url} has {count} partitions, not {given}; give --partition i/{count}")


def _establish(folder: Folder, name: str, data: bytes) -> None:
    """Creates a file that never changes, unless it exists: of several drivers, one writes it.

    If the filesystem cannot create files exclusively, it is there once it stays the same for a while.
    """
    try:
        while not folder.create(name, data):
            before = folder.read(name) if folder.exists(name) else None
            if before is None:
                folder.write(name, data)
            time.sleep(lease.SETTLE_S)
            if folder.read(name) == (data if before is None else before):
                return
    except FileExistsError:
        return


def fingerprint(shards: Iterable[Shard]) -> str:
    """Returns a hash of the shards of an input, whatever their order."""
    return hashlib.sha256("".join(sorted(shard.id for shard in shards)).encode()).hexdigest()


@dataclass(frozen=True)
class Unfinished:
    """Why an output is not complete."""

    waiting: list[Partition]
    """Partitions that have not finished."""
    outdated: list[Partition]
    """Partitions that have finished another input, as it changed between the starts of the drivers."""

    def __str__(self) -> str:
        reasons = [f"not finished: {_first(self.waiting)}"] if self.waiting else []
        if self.outdated:
            reasons.append(f"{_first(self.outdated)} finished while the input was another; run all partitions again")
        return "; ".join(reasons)


def _first(partitions: Sequence[Partition]) -> str:
    others = len(partitions) - SHOWN
    return ", ".join(map(str, partitions[:SHOWN])) + (f" and {others} others" if others > 0 else "")


def finish_output(
    folder: Folder, division: Division, *, job: Mapping[str, Any], listing: str, confirm: Callable[[], None]
) -> Unfinished | None:
    """Writes the manifest of an output if all partitions have finished the same input; returns why not, or None.

    Drivers that call this at the same time write the same manifest.

    Args:
        job: the settings given to `write_job`.
        listing: `fingerprint` of the input that this driver has finished.
        confirm: raises if this process may no longer write.
    """
    while True:
        before = folder.version(MANIFEST)
        logs = CommitLog.load_partitions(folder, division.count)
        found = {partition: read_manifest(folder, partition) for partition in division.partitions}
        manifests = {partition: its for partition, its in found.items() if its and is_of(its, logs[partition])}
        waiting = [partition for partition in division.partitions if partition not in manifests]
        outdated = [partition for partition, its in manifests.items() if its.get("listing") != listing]
        if waiting or outdated:
            return Unfinished(waiting, outdated)
        whole = CommitLog.merged(logs.values())
        _sweep_undivided(folder)
        if is_of(read_manifest(folder), whole):
            return None
        confirm()
        try:
            write_manifest(folder, MANIFEST, whole, job=job, run=_sum_of_runs(manifests), before=before)
        except FileExistsError:  # by another driver that found all finished
            continue
        return None


def _sweep_undivided(folder: Folder) -> None:
    """Deletes parts and records of drivers of the whole output that died before it was divided: none of them counts."""
    for name in folder.names():
        if name.startswith(PART) and partition_of(name) is None:
            folder.remove(name)
    for name in folder.names(COMMITS):
        folder.remove(f"{COMMITS}/{name}")


def _sum_of_runs(manifests: Mapping[Partition, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns `run`, `device` and `versions` of an output, and those of its partitions."""
    of_all = [its["run"] for its in manifests.values()]
    began = [datetime.fromisoformat(run["started"]) for run in of_all]
    ended = [start + timedelta(seconds=run["seconds"]) for start, run in zip(began, of_all, strict=True)]
    seconds, rows = (max(ended) - min(began)).total_seconds(), sum(run["rows"] for run in of_all)
    names = ("run", "device", "versions")
    return {
        "run": {
            "started": min(began).isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
            "rows": rows,
            "images_per_s": round(rows / max(seconds, 1e-9), 2),
        },
        "device": ", ".join(sorted({its["device"] for its in manifests.values()})),
        "partitions": {str(partition): {name: its[name] for name in names} for partition, its in manifests.items()},
    }
