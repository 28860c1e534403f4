"""The share of a captioning command in its output: all of it, or a partition."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from configs.partition import Partition
from pipeline.inputs.listing import Listing
from pipeline.output.commit_log import CommitLog
from pipeline.output.layout import control_path
from pipeline.output.manifest import finish, is_of, read_manifest
from pipeline.output.partitions import (
    Division,
    Unfinished,
    find_division,
    fingerprint,
    finish_output,
    record_division,
)
from pipeline.storage.folder import Folder


@dataclass(frozen=True)
class Share:
    """What one command captions and writes. Made by `find`."""

    folder: Folder
    """The output."""
    partition: Partition | None
    """None if the command writes the whole output."""
    whole_input: Listing
    division: Division | None
    """How the output is divided; None if it is not."""

    @classmethod
    def find(cls, folder: Folder, partition: Partition | None, inputs: Sequence[str], listing: Listing) -> Share:
        """Finds the share of a command, and writes nothing. Raises OutputError if the output has no such partition."""
        division = find_division(folder, partition, inputs, listing.shards) if partition else None
        return cls(folder, partition, listing, division)

    def record(self, job: Mapping[str, Any]) -> Share:
        """Divides the output, unless another driver has; returns the share in that division. Raises OutputError."""
        return replace(self, division=record_division(self.folder, self.division, job)) if self.division else self

    @property
    def control(self) -> Folder:
        """The folder of the driver's lease, epochs and plan."""
        return self.folder.below(control_path(self.partition)) if self.partition else self.folder

    @cached_property
    def input(self) -> Listing:
        """The shards that the command captions."""
        if not (self.partition and self.division):
            return self.whole_input
        return replace(self.whole_input, shards=self.division.shards_of(self.partition, self.whole_input.shards))

    def commit_log(self, whole: CommitLog) -> CommitLog:
        """Returns the commits of this driver, given those of the whole output."""
        return CommitLog.load(self.folder, self.partition) if self.partition else whole

    def finish(
        self,
        commit_log: CommitLog,
        *,
        job: Mapping[str, Any],
        run: Mapping[str, Any],
        is_new: bool,
        confirm: Callable[[], None],
    ) -> Unfinished | None:
        """Writes the manifest, and that of the whole output where this partition was the last; returns what is missing.

        Args:
            commit_log: all commits of the share.
            job, run, confirm: as for `pipeline.output.manifest.finish`.
            is_new: whether the run found work; otherwise the manifest of the run that finished it stays.
        """
        before = read_manifest(self.folder, self.partition)
        stays = not is_new and is_of(before, commit_log)
        if not (self.partition and self.division):
            if not stays:
                finish(self.folder, commit_log, job=job, run=run, confirm=confirm)
            return None
        listing = fingerprint(self.whole_input.shards)
        if before is None or not stays or before.get("listing") != listing:
            told = {name: before[name] for name in run} if before and stays else run
            run = {**told, "listing": listing}
            finish(self.folder, commit_log, job=job, run=run, confirm=confirm, partition=self.partition)
        return finish_output(self.folder, self.division, job=job, listing=listing, confirm=confirm)
