"""Determines the progress of a job from its output alone: the plan, the commit records, the lease."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from configs.partition import Partition
from pipeline.output import lease
from pipeline.output.commit_log import CommitLog
from pipeline.output.layout import control_path
from pipeline.output.manifest import is_finished
from pipeline.output.partitions import read_division
from pipeline.shards import Span
from pipeline.storage.folder import Folder

PLAN = "_plan.json"
RECENT_S = 600.0
"""Seconds of recent commits from which the rate is computed."""


@dataclass(frozen=True)
class Plan:
    """The total amount of work at the start of a run, committed and remaining."""

    files: int
    bytes: int
    """Encoded size of the inputs."""


@dataclass(frozen=True)
class Status:
    """The progress of a job. Bytes are those of the input files."""

    state: str
    """"complete", "running" or "stopped"."""
    driver: str
    """Description of the lease's owner; empty if there is none."""
    partitions: dict[str, str]
    """State of each partition: "finished", "running", "stopped" or "not started"; empty if there are none."""
    rows: int
    errors: dict[str, int]
    """Number of rows without a caption, by error code."""
    files: int
    """Number of completely committed files."""
    total_files: int
    bytes: int
    """Committed bytes."""
    total_bytes: int
    share: float
    """Committed share of the bytes, in [0, 1]."""
    rows_per_s: float
    """Rate of the recent commits; 0 if there are too few."""
    seconds_left: float | None
    """Estimate from the rate in bytes of the recent commits; None if unknown."""


def write_plan(folder: Folder, commit_log: CommitLog, spans: Sequence[Span]) -> Plan:
    """Writes the plan of a run into its output, for `shardtalk status`, and returns it."""
    files = commit_log.row_ranges.keys() | {span.shard.id for span in spans}
    left = sum(max(0, span.shard.size - span.offset) for span in spans if span.stop is None)
    plan = Plan(len(files), committed_bytes(commit_log) + left)
    folder.write(PLAN, json.dumps(asdict(plan)).encode())
    return plan


def committed_bytes(commit_log: CommitLog) -> int:
    """Returns the bytes of input up to the last committed row of each file."""
    return sum(max(row_range.next_offset for row_range in row_ranges) for row_ranges in commit_log.row_ranges.values())


def read_status(folder: Folder) -> Status:
    """Reads the progress of a job. Raises OutputError for damaged records."""
    commit_log, division = CommitLog.load(folder), read_division(folder)
    partitions = division.partitions if division else []
    shares = [folder.below(control_path(partition)) for partition in partitions] or [folder]
    owners = [lease.read_owner(share) for share in shares]
    complete = is_finished(folder, commit_log) and not any(owners)
    done = committed_bytes(commit_log)
    finished = sum(any(row_range.last for row_range in row_ranges) for row_ranges in commit_log.row_ranges.values())
    planned = (
        list(zip(division.files, division.bytes, strict=True)) if division else [(len(commit_log.row_ranges), done)]
    )
    plans = [_read_plan(share) or Plan(*first) for share, first in zip(shares, planned, strict=True)]
    rows_per_s, bytes_per_s = _rates(commit_log)
    total_bytes = sum(plan.bytes for plan in plans)
    left = max(0, total_bytes - done)
    drivers = [str(owner) for owner in owners if owner]
    return Status(
        state="complete" if complete else "running" if any(o and not o.is_dead for o in owners) else "stopped",
        driver=f"{len(drivers)} drivers" if len(drivers) > 1 else "".join(drivers),
        partitions={
            str(partition): _state(folder, partition, owner)
            for partition, owner in zip(partitions, owners if partitions else [], strict=True)
        },
        rows=commit_log.rows,
        errors=commit_log.errors,
        files=finished,
        total_files=sum(plan.files for plan in plans),
        bytes=done,
        total_bytes=total_bytes,
        share=1.0 if complete or not total_bytes else min(1.0, done / total_bytes),
        rows_per_s=rows_per_s,
        seconds_left=0.0 if complete else left / bytes_per_s if bytes_per_s else None,
    )


def _read_plan(share: Folder) -> Plan | None:
    return Plan(**json.loads(share.read(PLAN))) if share.exists(PLAN) else None


def _state(folder: Folder, partition: Partition, owner: lease.Owner | None) -> str:
    if owner and not owner.is_dead:
        return "running"
    if is_finished(folder, CommitLog.load(folder, partition), partition):
        return "finished"
    return "stopped" if folder.below(control_path(partition)).exists(PLAN) else "not started"


def _rates(commit_log: CommitLog) -> tuple[float, float]:
    """Returns rows and bytes per second between the first and the last of the recent commits."""
    commits = sorted(commit_log.commits, key=lambda commit: commit.committed)
    recent = [commit for commit in commits if commit.committed >= commits[-1].committed - RECENT_S]
    seconds = recent[-1].committed - recent[0].committed if recent else 0.0
    if seconds <= 0 or time.time() - recent[-1].committed > RECENT_S:
        return 0.0, 0.0
    rows = sum(commit.rows for commit in recent[1:])
    return rows / seconds, rows / seconds * committed_bytes(commit_log) / max(1, commit_log.rows)
