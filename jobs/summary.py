"""What a captioning job says at its end, and whether it failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from configs.caption import CaptionConfig
from jobs import cli, terminal
from pipeline.file_types import counted
from pipeline.filenames import printable
from pipeline.inference.run_stats import Report
from pipeline.inputs.listing import Listing
from pipeline.output.commit_log import CommitLog
from pipeline.output.part_reader import read_part
from pipeline.shards import Shard, ShardFormat
from pipeline.storage.folder import Folder

SHOWN_REASONS = 3
MOST_LOST = 0.5
"""Share of a shard's bytes that may be unreadable; one of which more is counts as lost."""


def judge(
    config: CaptionConfig, folder: Folder, commit_log: CommitLog, listing: Listing, report: Report, *, least_rows: int
) -> int:
    """The exit code, were it not for a request to stop; says why it is not 0.

    Args:
        least_rows: with fewer, nothing is judged.
    """
    failed = False
    if report.is_rotten(config.max_error_rate, least_rows):
        say(f"failed: {report.errors} of {report.rows} rows are errors; max_error_rate is {config.max_error_rate}")
        say(f"errors: {counted(commit_log.errors)}; the first: {first_error(folder, commit_log)}")
        failed = True
    found, allowed = find_damaged(commit_log, listing), config.lost_shards_allowed
    too_many = len(found.lost) > allowed * found.shards or found.lost_shards_bytes > allowed * found.bytes
    if too_many and report.rows >= least_rows:
        say(
            f"failed: {len(found.lost)} of {found.shards} shards could not be read, with {found.share:.1%} of all"
            f" bytes; max_lost_shards is {allowed}; {_first_reasons(found.lost)}"
        )
        failed = True
    return cli.FAILED if failed else 0


@dataclass
class Damaged:
    """Shards of many images of which not all could be read."""

    lost: dict[str, str] = field(default_factory=dict)
    """Those of which no image could be read, or less than half of the bytes: by path, with the reason."""
    others: int = 0
    """How many are damaged beside them."""
    shards: int = 0
    """Of many images, damaged or not."""
    bytes: int = 0
    """Of these."""
    lost_shards_bytes: int = 0
    unread: float = 0.0
    """Bytes that could not be read, of lost shards and others."""

    @property
    def share(self) -> float:
        """Of all bytes, those that could not be read."""
        return self.unread / max(1, self.bytes)


def find_damaged(commit_log: CommitLog, listing: Listing) -> Damaged:
    """What of the inputs could not be read."""
    found, damage = Damaged(), commit_log.damage()
    for shard in (shard for shard in listing.shards if damage and shard.format != ShardFormat.IMAGE):
        size = max(0, shard.size)
        found.shards, found.bytes = found.shards + 1, found.bytes + size
        if shard.id not in damage:
            continue
        share = commit_log.lost_share(shard.id, damage[shard.id], size)
        found.unread += share * size
        if share > MOST_LOST:
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
    """An error of the output, as an example."""
    for commit in commit_log.commits:
        if commit.errors:
            for row in read_part(folder, commit.file, ["image_id", "error_code", "error_message"]).to_pylist():
                if row["error_code"]:
                    return f"{row['image_id']}: {row['error_code']}: {row['error_message']}"
    return "none"


def summarise(where: str, commit_log: CommitLog, listing: Listing, report: Report, device: str) -> None:
    """Says what was done."""
    errors = sum(commit_log.errors.values())
    say(
        f"{commit_log.rows - errors} captions and {errors} errors in {where};"
        f" this run {report.run_rows} rows in {report.seconds:.1f} s, {report.images_per_s:.1f} images/s on {device}"
    )
    if report.run_rows:
        bottleneck, *others = (f"{stage} {share:.0%}" for stage, share in report.busy.items())
        say(f"busy: {bottleneck} (the bottleneck), {', '.join(others)}")
    if errors:
        say(f"errors: {counted(commit_log.errors)}")
    damaged = find_damaged(commit_log, listing)
    if damaged.lost:
        say(f"{len(damaged.lost)} shards could not be read; {_first_reasons(damaged.lost)}")
    if damaged.others:
        say(f"{damaged.others} shards are damaged; the images beside the damage are captioned")
    if damaged.unread:
        say(f"{damaged.unread:,.0f} bytes of the shards, {damaged.share:.1%}, could not be read")
    if gone := len(commit_log.shard_ids.keys() - _names(listing.shards)):
        say(f"{gone} files of this output are not among the inputs now; their rows stay")
    if listing.ignored:
        say(f"ignored {listing.ignored.total()} other files: {counted(listing.ignored)}")
    if report.ignored:
        say(f"ignored {report.ignored.total()} other files inside shards: {counted(report.ignored)}")


def _names(shards: Iterable[Shard]) -> set[str]:
    return {printable(shard.path) for shard in shards}


def say(text: str) -> None:
    """A line for the user."""
    terminal.tell("shardtalk caption", text)
