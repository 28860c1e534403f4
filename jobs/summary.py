"""What a captioning job says at its end, and whether it failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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
    reasons, allowed = _lost(commit_log, listing), config.lost_shards_allowed
    shards = sum(shard.format != ShardFormat.IMAGE for shard in listing.shards) if reasons else 0
    if len(reasons) > allowed * shards and report.rows >= least_rows:
        say(
            f"failed: {len(reasons)} of {shards} shards could not be read; max_lost_shards is {allowed};"
            f" {_first_reasons(reasons)}"
        )
        failed = True
    return cli.FAILED if failed else 0


def _lost(commit_log: CommitLog, listing: Listing) -> dict[str, str]:
    """The shards of many images of which not one could be read, by path, with the reason."""
    lost = commit_log.lost_shards()
    if not lost:
        return {}
    many = (shard for shard in listing.shards if shard.format != ShardFormat.IMAGE)
    return {printable(shard.path): lost[shard.id] for shard in many if shard.id in lost}


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
    if reasons := _lost(commit_log, listing):
        say(f"{len(reasons)} shards could not be read; {_first_reasons(reasons)}")
    if damaged := {shard for commit in commit_log.commits for shard in commit.damage} - commit_log.lost_shards().keys():
        say(f"{len(damaged)} shards are damaged; the images beside the damage are captioned")
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
