"""`shardtalk caption`: captions images, a row each.

plan → read → decode → caption → commit, on one of two runners that give the same rows. Rows are committed with records
of their positions in the input; the same command again reads these records and captions the remaining images.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
from collections.abc import Generator
from functools import partial
from importlib.metadata import version

import pyarrow as pa

from cluster import connect
from cluster.metrics import Metrics
from configs.caption import CaptionConfig
from jobs import __version__, cli
from jobs.captioning import placement
from jobs.captioning.flow import caption_spans
from jobs.captioning.job_description import describe, read_options
from jobs.captioning.progress import CaptionProgress, describe_job
from jobs.captioning.share import Share
from jobs.captioning.summary import find_failures, summarise
from jobs.console.stop_requests import stop_on_signals
from model.device import SINGLE_ARENA
from pipeline.captioners.registry import build_captioner
from pipeline.errors import CaptionerError
from pipeline.exports.tables import write_beside_parts
from pipeline.filenames import normalize_path
from pipeline.inference.run_stats import RunStats
from pipeline.inputs.listing import list_inputs
from pipeline.inputs.renamed import check_not_renamed
from pipeline.output import lease, retry_errors
from pipeline.output.cleanup import sweep
from pipeline.output.commit_log import CommitLog
from pipeline.output.job_record import check_output_folder, check_outside_inputs, check_same_job, write_job
from pipeline.output.writer import PartWriter
from pipeline.results.progress import write_plan
from pipeline.shards import Span
from pipeline.storage.folder import Folder

log = logging.getLogger("shardtalk.caption")

EARLY_STOP_ROWS = 1_000
"""Number of rows from which a run with more errors than `max_error_rate` is stopped early."""


def run(config: CaptionConfig) -> int:
    """Captions the inputs; returns the exit code."""
    captioner = build_captioner(config)
    config = placement.with_hints(config, captioner)
    inputs = [normalize_path(given) for given in config.inputs]
    folder = Folder(config.output, writer=config.share.name if config.share else "")
    check_outside_inputs(folder.url, inputs)
    listing = list_inputs(inputs, read_options(config))
    job = describe(config, captioner)
    check_output_folder(folder)
    share = Share.find(folder, config.share, inputs, listing)
    on_ray = config.runner == "ray" or (config.runner == "auto" and connect.is_expected())
    device = "" if on_ray else placement.check_device(config.device, config.ray, None)
    with lease.hold(share.control) as mine:
        whole = CommitLog.load(folder)
        check_same_job(folder, whole, job)
        check_not_renamed(whole.shard_ids, listing.shards)
        commit_log = share.commit_log(whole)
        spans = list(commit_log.remaining_work(share.input.shards)) if not config.retry_errors else []
        # Connected before `stop_on_signals`: Ray takes SIGTERM for itself.
        resources = None
        if on_ray and (spans or config.retry_errors):
            resources = connect.connect(config.ray.address, SINGLE_ARENA)
            device = placement.check_device(config.device, config.ray, resources)

        share = share.record(job)
        write_job(folder, job)
        mine.start(commit_log, job)
        if config.retry_errors:
            taken_back = retry_errors.uncommit_errors(
                folder, commit_log, share.input.shards, mine, options=read_options(config)
            )
            log.info(f"{taken_back} rows with errors are tried again")
        if config.retry_errors or share.partition:  # another driver may have divided the output otherwise
            spans = list(commit_log.remaining_work(share.input.shards))
        sweep(folder, commit_log, confirm=mine.confirm, partition=share.partition)
        plan = write_plan(share.control, commit_log, spans)
        part_writer = PartWriter(
            folder,
            commit_log,
            file_format=config.format,
            rows_per_file=config.rows_per_file,
            commit_interval_s=config.commit_interval_s,
            confirm=mine.confirm,
            epoch=mine.epoch.id,
            partition=share.partition,
        )
        slots = placement.slots(config, captioner, resources)
        stats = RunStats(commit_log, slots, expected_rows=_expected_rows(commit_log, spans))
        runner = "ray" if on_ray else "local"
        log.info(describe_job(config.inputs, share.input.shards, config.captioner, device, runner))

        stopped = _commit(
            caption_spans(config, captioner, spans, resources),
            part_writer,
            stats,
            CaptionProgress(stats, commit_log, plan, device),
            metrics=Metrics() if resources else None,
            max_error_rate=config.max_error_rate,
            shutdown_timeout_s=config.shutdown_timeout_s,
        )
        if find_failures(
            folder,
            commit_log,
            share.input,
            stats,
            max_error_rate=config.max_error_rate,
            max_lost_shards=config.lost_shards_allowed,
            min_rows=EARLY_STOP_ROWS if stopped else 0,
        ):
            return cli.FAILED
        if stopped:
            log.info(f"interrupted: {stats.rows} rows are committed; the same command again does the rest")
            return cli.INTERRUPTED

        mine.confirm()
        run = {"run": stats.record(), "device": device, "versions": _versions()}
        missing = share.finish(commit_log, job=job, run=run, is_new=bool(spans), confirm=mine.confirm)
        if missing is None:
            whole = CommitLog.load(folder) if share.partition else commit_log
            write_beside_parts(folder, whole, config.export_formats)
        summarise(config.output, commit_log, share.input, stats, device)
        if share.partition:
            log.info(
                f"partition {share.partition} is finished; {missing or 'so are all others: the output is complete'}"
            )
        return 0


def _expected_rows(commit_log: CommitLog, spans: list[Span]) -> int | None:
    """Returns the number of rows of the finished output; None if tars, tables or lists are among the inputs."""
    return commit_log.rows + len(spans) if all(span.shard.image_id for span in spans) else None


def _commit(
    tables: Generator[pa.Table],
    part_writer: PartWriter,
    stats: RunStats,
    progress: CaptionProgress,
    *,
    metrics: Metrics | None,
    max_error_rate: float,
    shutdown_timeout_s: float,
) -> bool:
    """Commits the tables; returns True if a signal asked to stop before the end.

    Raises CaptionerError where the captioner cannot go on, once the captions before it are committed.
    """
    announce, give_up = partial(log.info, "stopping: committing what is done"), partial(_give_up, shutdown_timeout_s)
    with stop_on_signals(announce, timeout_s=shutdown_timeout_s, give_up=give_up) as stop:
        try:
            for rows in progress.shown(stop.until_requested(tables)):
                stats.count(rows)
                with stats.writing():
                    part_writer.write(rows)
                if metrics:
                    metrics.publish(**stats.totals(), rows_waiting=part_writer.rows_waiting)
                if stats.exceeds_error_rate(max_error_rate, EARLY_STOP_ROWS):
                    break
        except CaptionerError:
            if stats.run_rows > stats.run_errors.total():  # else the rows are errors of a captioner that never worked
                part_writer.commit()
            raise
        with stats.writing():
            part_writer.commit()
        if metrics:
            metrics.publish(**stats.totals(), rows_waiting=0)
    return stop.requested


def _give_up(shutdown_timeout_s: float) -> None:
    """Ends the process at once, which the output survives at any instant."""
    log.error(
        f"interrupted: not all of what was done could be committed within {shutdown_timeout_s:g} s; "
        "the same command does the rest"
    )
    os._exit(cli.INTERRUPTED)


def _versions() -> dict[str, str]:
    found = {name: version(name) for name in ("torch", "torchvision", "pillow", "pyarrow")}
    return found | {"shardtalk": __version__, "python": platform.python_version()}


if __name__ == "__main__":
    sys.exit(cli.main(["caption", *sys.argv[1:]]))
