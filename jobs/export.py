"""`shardtalk export`: writes the captions of an output in a form that other programs read.

verify → select → write. A file appears under its name once it is complete; the same command again writes what is left.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from tqdm import tqdm

from configs.export import FILE_ENDINGS, ExportConfig
from jobs import cli
from jobs.verify import examine
from pipeline.errors import OutputError
from pipeline.exports.destination import FolderDestination, check_is_no_input, check_outside_output, fingerprint
from pipeline.exports.image_folder import METADATA, write_image_folder
from pipeline.exports.names import SidecarNames
from pipeline.exports.rows import Row, SelectedRows, Selection
from pipeline.exports.sidecars import sweep, write_sidecars
from pipeline.exports.tables import WRITERS
from pipeline.exports.units import ImageReader, MissingImageError, find_units
from pipeline.exports.webdataset import write_tar
from pipeline.exports.xmp import encode_xmp
from pipeline.output.commit_log import CommitLog
from pipeline.output.job_record import check_is_output, check_reading_rules, read_job
from pipeline.read_options import ReadOptions
from pipeline.results.review import Review, read_review
from pipeline.storage.filesystems import is_remote
from pipeline.storage.folder import Folder

log = logging.getLogger("shardtalk.export")


@dataclass
class Report:
    """What an export did."""

    written: str
    """Numbers of rows and files written."""
    notes: list[str] = field(default_factory=list)
    """Numbers of rows and files left as they are or left out, with the reasons."""
    failed: list[str] = field(default_factory=list)
    """Reasons why tars or folders were not written."""


def run(config: ExportConfig) -> int:
    """Exports the captions, and logs the numbers written and left out; returns the exit code."""
    review = read_review(config.review) if config.review else None
    folder = Folder(config.output)
    check_is_output(folder)
    if not config.unverified:
        _verify(config.output)
    is_table = config.to in ("csv", "jsonl")
    selection = Selection(config.errors if is_table else "exclude", config.min_log_prob_per_token)
    rows = SelectedRows(folder, CommitLog.load(folder), selection, review)
    if config.to in FILE_ENDINGS:
        report = _export_table(config, rows)
    elif config.to in ("txt", "xmp"):
        report = _export_sidecars(config, rows)
    else:
        report = _export_images(config, rows)
    return _summarise(config, rows, report)


def _verify(output: str) -> None:
    """Raises OutputError for an output that is not finished or contradicts itself."""
    problems = examine(output, [], max_problems=1).problems
    if problems:
        raise OutputError(f"{output} is not verified: {problems[0]}; --unverified exports the rows that there are")


def _export_table(config: ExportConfig, rows: SelectedRows) -> Report:
    parent, _, name = config.destination.rpartition("/")
    check_outside_output(rows.folder, config.destination)
    check_is_no_input(rows.commit_log, config.destination)
    with Folder(parent or ("/" if config.destination.startswith("/") else ".")).writer(name) as file:
        count = WRITERS[config.to](file, _shown(rows.parts(), rows))
    return Report(f"{count:,} rows")


def _shown(parts: Iterable[list[Row]], rows: SelectedRows) -> Iterator[list[Row]]:
    """Yields parts, with a progress bar over them."""
    with tqdm(parts, total=len(rows.commit_log.commits), unit="part", disable=None, dynamic_ncols=True) as bar:
        yield from bar


def _export_sidecars(config: ExportConfig, rows: SelectedRows) -> Report:
    destination = FolderDestination(config.destination, rows, may_be_input=True)
    destination.claim(export := _describe(config, rows))
    extension = "xmp" if config.to == "xmp" else config.extension
    sweep(destination.folder, extension)
    local = not is_remote(destination.folder.url)
    names = SidecarNames(rows.commit_log, extension=extension, as_bytes=local)
    counts = write_sidecars(
        destination.folder,
        _shown(map(destination.checked, rows.parts()), rows),
        name=names.name,
        encode=encode_xmp if config.to == "xmp" else str.encode,
    )
    destination.finish(export)
    report = Report(f"{counts.written:,} files")
    if counts.present:
        report.notes.append(f"{counts.present:,} were there already")
    if counts.kept:
        report.notes.append(
            f"{counts.kept:,} others exist with other contents and were kept, such as {counts.first_kept}"
        )
    return report


def _export_images(config: ExportConfig, rows: SelectedRows) -> Report:
    job = read_job(rows.folder)
    check_reading_rules(rows.folder, job)
    destination = FolderDestination(config.destination, rows, may_be_input=False)
    destination.claim(export := _describe(config, rows))
    images = ImageReader(ReadOptions.from_job(job), config.allow_missing)
    as_tars = config.to == "webdataset"
    write = partial(write_tar, extension=config.extension) if as_tars else write_image_folder
    units, captions, present, written, failed = [*find_units(rows, as_tars=as_tars)], 0, 0, 0, list[str]()
    for unit in tqdm(units, unit="tar" if as_tars else "folder", disable=None, dynamic_ncols=True):
        if destination.folder.exists(f"{unit.name}.tar" if as_tars else f"{unit.name}/{METADATA}"):
            present += 1
            continue
        try:
            selected = unit.rows(rows)
            if unit.commit:
                selected = iter(destination.checked([*selected]))
            count = write(destination.folder, unit, selected, images)
            captions, written = captions + count, written + bool(count)
        except MissingImageError as error:
            failed.append(str(error))
    kind = "tars" if as_tars else "folders"
    report = Report(f"{captions:,} images with captions in {written:,} {kind}", failed=failed)
    if present:
        report.notes.append(f"{present:,} {kind} were there already")
    if images.missing:
        report.notes.append(f"{images.missing:,} captions left out whose image is gone or has changed")
    if not failed:
        destination.finish(export)
    return report


def _describe(config: ExportConfig, rows: SelectedRows) -> dict[str, object]:
    """Describes what determines the files of an export, as JSON."""
    threshold = config.min_log_prob_per_token
    return {
        "to": config.to,
        "extension": config.extension,
        "min_log_prob_per_token": threshold if threshold > float("-inf") else None,
        "review": rows.review.sha256 if rows.review else None,
        "allow_missing": config.allow_missing,
        "rows": fingerprint(rows.commit_log),
    }


def _summarise(config: ExportConfig, rows: SelectedRows, report: Report) -> int:
    left_out = {
        "errors": rows.left_out.errors,
        "captions": rows.left_out.captions,
        "rejected": rows.left_out.rejected,
        f"captions below min_log_prob_per_token {config.min_log_prob_per_token:g}": rows.left_out.improbable,
    }
    skipped = ", ".join(f"{count:,} {kind}" for kind, count in left_out.items() if count)
    notes = [*report.notes, *([f"left out: {skipped}"] if skipped else [])]
    if rows.review:
        notes.append(_describe_review(rows.review))
    log.info("; ".join([f"{report.written} written to {config.destination}", *notes]))
    if report.failed:
        log.error(
            f"failed: {len(report.failed)} could not be written for missing images; the first: {report.failed[0]};"
            " --allow_missing leaves such captions out"
        )
        return cli.FAILED
    return 0


def _describe_review(review: Review) -> str:
    kinds = {"keep": "kept", "edit": "edited", "reject": "rejected", "outdated": "made on other captions, and ignored"}
    counts = ", ".join(f"{review.applied[kind]:,} {name}" for kind, name in kinds.items() if review.applied[kind])
    return f"of {len(review.decisions):,} decisions of the review: {counts or 'none is on a row that was read'}"


if __name__ == "__main__":
    sys.exit(cli.main(["export", *sys.argv[1:]]))
