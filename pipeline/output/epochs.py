"""Epochs decide which commits count: each driver of an output claims the next number and records the commits it found.

_epochs/000007            the claim of driver 7: the id of its lease; a driver with an older claim may no longer write
_epochs/000007-ID.json    its snapshot: the commits that count besides its own, and the job

Commit records carry their driver's epoch. A commit counts if it is of the newest epoch or in its snapshot. A driver
that was paused, lost the output and resumes later therefore cannot add rows. This depends on the order of steps:
claim, read the records, write the snapshot; and before any deletion: list, confirm, delete.

The epoch of partitions (`pipeline.output.partitions`) is the last of an output: no other is claimed after it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import OutputError
from pipeline.storage.folder import Folder

EPOCHS = "_epochs"
_NAME = re.compile(r"(\d{6,})(?:-(\w+)\.json)?")
_SHARED = "partitions"


@dataclass(frozen=True)
class Epoch:
    """The turn of one driver."""

    number: int
    driver: str
    """`pipeline.output.lease.Owner.id`; "partitions16" for the drivers of 16 partitions."""

    @classmethod
    def of_partitions(cls, number: int, count: int) -> Epoch:
        """Returns the epoch that the drivers of all partitions share."""
        return cls(number, f"{_SHARED}{count}")

    @property
    def partitions(self) -> int:
        """Number of partitions whose drivers share it; 0 for the epoch of one driver."""
        count = self.driver.removeprefix(_SHARED)
        return int(count) if self.driver.startswith(_SHARED) and count.isdecimal() else 0

    @property
    def id(self) -> str:
        """The id in commit records."""
        return f"{self.number:06}-{self.driver}"

    @property
    def claim_file(self) -> str:
        """Name of the claim in the output folder."""
        return f"{EPOCHS}/{self.number:06}"

    @property
    def snapshot_file(self) -> str:
        """Name of the snapshot in the output folder."""
        return f"{EPOCHS}/{self.id}.json"


@dataclass(frozen=True)
class EpochSnapshot:
    """The commits that the newest driver found, and its job."""

    epoch: str
    files: frozenset[str]
    """Parts whose commits count besides those of this epoch."""
    job: Mapping[str, Any]
    """The settings that determine the rows."""
    division: Mapping[str, Any] = field(default_factory=dict)
    """`pipeline.output.partitions.Division` of the partitions; empty if there are none."""

    def includes(self, epoch: str, file: str) -> bool:
        """Returns whether the commit of a part counts, given its epoch."""
        return epoch == self.epoch or file in self.files

    def encode(self) -> bytes:
        """Returns the contents of the snapshot's file."""
        found = {"epoch": self.epoch, "files": sorted(self.files), "job": self.job}
        return json.dumps(found | ({"division": self.division} if self.division else {}), ensure_ascii=False).encode()


def claim(folder: Folder, driver: str) -> Epoch:
    """Begins an epoch, after which commits of older drivers do not count. Raises OutputError if another was faster.

    If the filesystem cannot create files exclusively, the last of several claims of one number wins, and `is_newest`
    is False for the others.
    """
    newest = newest_claim(folder)
    _check_undivided(folder, newest)
    epoch = Epoch(newest.number + 1, driver)
    try:
        if not folder.create(epoch.claim_file, driver.encode()):
            folder.write(epoch.claim_file, driver.encode())
            _check_undivided(folder, give_back_to_partitions(folder, epoch))
    except FileExistsError as error:
        raise OutputError(f"{folder.url} is being written by another driver, which was faster") from error
    return epoch


def _check_undivided(folder: Folder, epoch: Epoch) -> None:
    if epoch.partitions:
        raise OutputError(
            f"{folder.url} is written in {epoch.partitions} partitions; give --partition i/{epoch.partitions}"
        )


def give_back_to_partitions(folder: Folder, epoch: Epoch) -> Epoch:
    """Returns whose epoch it is after a claim: that of partitions if they have begun in it, whose claim it restores.

    A driver that was slow may have overwritten their claim, where files cannot be created exclusively.
    """
    begun = [Epoch(number, driver) for number, driver in _listed(folder) if number == epoch.number and driver]
    before = [other for other in begun if other.partitions]
    if epoch in begun or not before:
        return epoch
    folder.write(before[0].claim_file, before[0].driver.encode())
    return before[0]


def newest_claim(folder: Folder) -> Epoch:
    """Returns the newest epoch that was claimed; its number is 0 if there is none."""
    number = max((number for number, _ in _listed(folder)), default=0)
    return Epoch(number, _claimed_by(folder, number) if number else "")


def is_newest(folder: Folder, epoch: Epoch) -> bool:
    """Returns whether no other driver has begun since. Before deleting, list the files first and then call this."""
    try:
        mine = folder.read(epoch.claim_file) == epoch.driver.encode()
    except FileNotFoundError:  # removed by a later driver
        return False
    return mine and not folder.exists(Epoch(epoch.number + 1, "").claim_file)


def write_snapshot(folder: Folder, epoch: Epoch, files: Iterable[str], job: Mapping[str, Any]) -> None:
    """Writes which commits count besides those of this epoch. Writing it again with fewer files uncommits the rest."""
    folder.write(epoch.snapshot_file, EpochSnapshot(epoch.id, frozenset(files), job).encode())


def read_snapshot(folder: Folder) -> EpochSnapshot | None:
    """Reads the newest snapshot; returns None for a new output and for one of a version without epochs."""
    listed = _listed(folder)
    number = max((number for number, driver in listed if driver), default=0)
    if not number:
        return None
    drivers = [driver for n, driver in listed if n == number and driver]
    if len(drivers) > 1:  # only if the filesystem allows two claims of one number: the last one wins
        drivers = [d for d in drivers if d == _claimed_by(folder, number)] or drivers[-1:]
    name = Epoch(number, drivers[0]).snapshot_file
    try:
        found = json.loads(folder.read(name))
        return EpochSnapshot(found["epoch"], frozenset(found["files"]), found["job"], found.get("division", {}))
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{folder.url}/{name} is damaged: {error}") from error


def remove_older(folder: Folder, epoch: Epoch) -> None:
    """Deletes the files of older epochs, the oldest first: `is_newest` must not find the next number missing."""
    for number, driver in _listed(folder):
        if number < epoch.number:
            old = Epoch(number, driver)
            folder.remove(old.snapshot_file if driver else old.claim_file)


def _claimed_by(folder: Folder, number: int) -> str:
    try:
        return folder.read(Epoch(number, "").claim_file).decode()
    except (FileNotFoundError, UnicodeDecodeError):
        return ""


def _listed(folder: Folder) -> list[tuple[int, str]]:
    """Returns number and driver of each file, sorted; the driver of a claim is empty."""
    matches = map(_NAME.fullmatch, folder.names(EPOCHS))
    return sorted((int(match[1]), match[2] or "") for match in matches if match)
