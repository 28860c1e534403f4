"""The summary of a captioning job, and the verdict whether it failed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pipeline.file_types import format_counts
from pipeline.filenames import printable
from pipeline.inference.run_stats import RunStats
from pipeline.inputs.listing import Listing
from pipeline.output.commit_log import CommitLog
from pipeline.output.part_reader import read_part
from pipeline.shards import Shard, ShardFormat
from pipeline.storage.folder import Folder

log = logging.getLogger("shardtalk.caption")

SHOWN_REASONS = 3
MAX_UNREAD_SHARE = 0.5
"""A shard of which a larger share of the bytes is unreadable counts as lost."""


def find_failures(
    folder: Folder,
    commit_log: CommitLog,
    listing: Listing,
    stats: RunStats,
    *,
    max_error_rate: float,
    max_lost_shards: float,
    min_rows: int = 0,
) -> bool:
    """Returns True if the job failed by the rows so far, and logs the reasons.

    Args:
        max_error_rate: maximum share of rows that are errors.
        max_lost_shards: maximum share of shards, and of their bytes, that could not be read.
        min_rows: with fewer rows, nothing counts as a failure.
    """
    failed = False
    if stats.exceeds_error_rate(max_error_rate, min_rows):
        log.error(f"failed: {stats.errors} of {stats.rows} rows are errors; max_error_rate is {max_error_rate}")
        log.error(f"errors: {format_counts(commit_log.errors)}; the first: {first_error(folder, commit_log)}")
        failed = True
    damaged = find_damaged(commit_log, listing)
    too_many = len(damaged.lost) > max_lost_shards * damaged.shards
    too_many |= damaged.lost_shards_bytes > max_lost_shards * damaged.bytes
    if too_many and stats.rows >= min_rows:
        log.error(
            f"failed: {len(damaged.lost)} of {damaged.shards} shards could not be read, with {damaged.share:.1%} of all"
            f" bytes; max_lost_shards is {max_lost_shards}; {_first_reasons(damaged.lost)}"
        )
        failed = True
    return failed


@dataclass
class DamagedShards:
    """The shards of many images that could not be read completely."""

    lost: dict[str, str] = field(default_factory=dict)
    """Reasons by path, for shards without a readable image, or with less than half of their bytes readable."""
    others: int = 0
    """Number of damaged shards that are not lost."""
    shards: int = 0
    """Number of all shards of many images, damaged or not."""
    bytes: int = 0
    """Bytes of all shards of many images."""
    lost_shards_bytes: int = 0
    """Bytes of the lost shards."""
    unread: float = 0.0
    """Bytes that could not be read, in lost and other shards."""

    @property
    def share(self) -> float:
        """Share of all bytes that could not be read."""
        return self.unread / max(1, self.bytes)


def find_damaged(commit_log: CommitLog, listing: Listing) -> DamagedShards:
    """Finds the shards of the input that could not be read completely."""
    found, damage = DamagedShards(), commit_log.damage()
    for shard in (shard for shard in listing.shards if damage and shard.format != ShardFormat.IMAGE):
        size = max(0, shard.size)
        found.shards, found.bytes = found.shards + 1, found.bytes + size
        if shard.id not in damage:
            continue
        share = commit_log.lost_share(shard.id, damage[shard.id], size)
        found.unread += share * size
        if share > MAX_UNREAD_SHARE:
            found.lost[printable(shard.path)] = damage[shard.id].reason
            found.lost_shards_bytes += size
        else:
            found.others += 1
    return found


def _first_reasons(reasons: Mapping[str, str]) -> str:
    first = [f"{path}: {reason}" for path, reason in list(reasons.items())[:SHOWN_REASONS]]
    more = len(reasons) - len(first)
    return "; ".join([*first, *([f"and {more} more"] if more else [])])


def first_error(folder: Folder, commit_log: CommitLog) -> str:
    """Describes the first error row of the output, as an example; "none" if there is none."""
    for commit in commit_log.commits:
        if commit.errors:
            for row in read_part(folder, commit.file, ["image_id", "error_code", "error_message"]).to_pylist():
                if row["error_code"]:
                    return f"{row['image_id']}: {row['error_code']}: {row['error_message']}"
    return "none"


def summarise(where: str, commit_log: CommitLog, listing: Listing, stats: RunStats, device: str) -> None:
    """Logs totals, speed, the busiest stages, errors and damaged input of a finished job."""
    errors = sum(commit_log.errors.values())
    log.info(
        f"{commit_log.rows - errors} captions and {errors} errors in {where};"
        f" this run {stats.run_rows} rows in {stats.seconds:.1f} s, {stats.images_per_s:.1f} images/s on {device}"
    )
    if stats.run_rows:
        bottleneck, *others = (f"{stage} {share:.0%}" for stage, share in stats.utilization.items())
        log.info(f"busy: {bottleneck} (the bottleneck), {', '.join(others)}")
    if errors:
        log.info(f"errors: {format_counts(commit_log.errors)}")
    damaged = find_damaged(commit_log, listing)
    if damaged.lost:
        log.info(f"{len(damaged.lost)} shards could not be read; {_first_reasons(damaged.lost)}")
    if damaged.others:
        log.info(f"{damaged.others} shards are damaged; the images beside the damage are captioned")
    if damaged.unread:
        log.info(f"{damaged.unread:,.0f} bytes of the shards, {damaged.share:.1%}, could not be read")
    if gone := len(commit_log.shard_ids.keys() - _names(listing.shards)):
        log.info(f"{gone} files of this output are not among the inputs now; their rows stay")
    if listing.ignored:
        log.info(f"ignored {listing.ignored.total()} other files: {format_counts(listing.ignored)}")
    if stats.ignored:
        log.info(f"ignored {stats.ignored.total()} other files inside shards: {format_counts(stats.ignored)}")


def _names(shards: Iterable[Shard]) -> set[str]:
    return {printable(shard.path) for shard in shards}
