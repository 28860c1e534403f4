"""Whose commits count: every driver of an output gets a number of its own, and says which commits it found.

_epochs/000007            the claim of driver 7, its lease's id; a driver without one, or with an older one, is over
_epochs/000007-ID.json    what it found: the commits that count beside its own, and the job

Commit records carry their driver's epoch. Those count that are of the newest epoch, or that its driver found. So what a
driver writes that was paused, lost the output and wakes up later does not count, whenever it comes. The order of the
steps makes it so: claim, read the records, write what was found; and before anything is deleted: list, confirm, delete.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import OutputError
from pipeline.storage.folder import Folder

EPOCHS = "_epochs"
_NAME = re.compile(r"(\d{6,})(?:-(\w+)\.json)?")


@dataclass(frozen=True)
class Epoch:
    """The time of one driver."""

    number: int
    driver: str
    """`pipeline.output.lease.Owner.id`."""

    @property
    def id(self) -> str:
        """As commit records have it."""
        return f"{self.number:06}-{self.driver}"

    @property
    def claim_file(self) -> str:
        """Name of its claim in the output."""
        return f"{EPOCHS}/{self.number:06}"

    @property
    def snapshot_file(self) -> str:
        """Name of the file that says what it found."""
        return f"{EPOCHS}/{self.id}.json"


@dataclass(frozen=True)
class EpochSnapshot:
    """What the newest driver found."""

    epoch: str
    files: frozenset[str]
    """Of the commits that count beside its own."""
    job: Mapping[str, Any]
    """What decides the rows."""

    def includes(self, epoch: str, file: str) -> bool:
        """Whether a commit of this epoch and file does."""
        return epoch == self.epoch or file in self.files


def claim(folder: Folder, driver: str) -> Epoch:
    """Begins an epoch: from here on what older drivers write does not count. Raises OutputError if another was faster.

    Where the filesystem cannot create exclusively, the last of several claims of a number counts, and `confirm` tells
    the others.
    """
    epoch = Epoch(max((number for number, _ in _listed(folder)), default=0) + 1, driver)
    try:
        if not folder.create(epoch.claim_file, driver.encode()):
            folder.write(epoch.claim_file, driver.encode())
    except FileExistsError as error:
        raise OutputError(f"{folder.url} is being written by another driver, which was faster") from error
    return epoch


def is_newest(folder: Folder, epoch: Epoch) -> bool:
    """Whether no other driver has begun since. Whoever deletes lists first, then asks this."""
    try:
        mine = folder.read(epoch.claim_file) == epoch.driver.encode()
    except FileNotFoundError:  # swept by a driver after the next
        return False
    return mine and not folder.exists(Epoch(epoch.number + 1, "").claim_file)


def write_snapshot(folder: Folder, epoch: Epoch, files: Iterable[str], job: Mapping[str, Any]) -> None:
    """Writes which commits count beside those of this epoch. Again with fewer files, it takes commits back."""
    found = {"epoch": epoch.id, "files": sorted(files), "job": job}
    folder.write(epoch.snapshot_file, json.dumps(found, ensure_ascii=False).encode())


def read_snapshot(folder: Folder) -> EpochSnapshot | None:
    """What the newest driver found that has begun; None in an output of a version without epochs, and in a new one."""
    listed = _listed(folder)
    number = max((number for number, driver in listed if driver), default=0)
    if not number:
        return None
    drivers = [driver for n, driver in listed if n == number and driver]
    if len(drivers) > 1:  # only where two could claim one number: the last that did
        drivers = [d for d in drivers if d == _claimed_by(folder, number)] or drivers[-1:]
    name = Epoch(number, drivers[0]).snapshot_file
    try:
        found = json.loads(folder.read(name))
        return EpochSnapshot(found["epoch"], frozenset(found["files"]), found["job"])
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{folder.url}/{name} is damaged: {error}") from error


def remove_older(folder: Folder, epoch: Epoch) -> None:
    """Deletes the files of older epochs, the oldest first, so that `is_newest` never finds a gap it takes for peace."""
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
    """Number and driver of each file; the driver is empty for a claim. Sorted."""
    matches = map(_NAME.fullmatch, folder.names(EPOCHS))
    return sorted((int(match[1]), match[2] or "") for match in matches if match)
