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
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa

from cluster import connect
from cluster.connect import Resources
from cluster.metrics import Metrics
from configs.caption import CaptionConfig
from jobs import __version__, cli
from jobs.captioning import placement
from jobs.captioning.job_description import describe, find_captioners, read_options
from jobs.captioning.progress import CaptionProgress, describe_inputs, report_startup
from jobs.captioning.summary import judge, summarise
from jobs.console.stop_requests import stop_on_signals
from model.captioner import checkpoint
from model.device import choose_device
from pipeline.inference.run_stats import RunStats
from pipeline.inference.stages import DecodeStage
from pipeline.inputs.listing import Listing, list_inputs
from pipeline.output import lease, retry
from pipeline.output.cleanup import sweep
from pipeline.output.commit_log import CommitLog
from pipeline.output.job_record import check_output_folder, check_outside_inputs, check_same_job, write_job
from pipeline.output.manifest import finish, is_finished
from pipeline.output.renamed_inputs import check_not_renamed
from pipeline.output.writer import PartWriter
from pipeline.results import exports
from pipeline.results.progress import write_plan
from pipeline.shards import Span
from pipeline.storage.folder import Folder
from pipeline.storage.paths import normalize_path

log = logging.getLogger("shardtalk.caption")

EARLY_STOP_ROWS = 1_000
"""Number of rows from which a run with more errors than `max_error_rate` is stopped early."""
CPU_BATCH_IMAGES, CUDA_BATCH_IMAGES = 32, 256


def run(config: CaptionConfig) -> int:
    """Captions the inputs; returns the exit code."""
    searching, reranking = find_captioners(config)
    inputs = [normalize_path(given) for given in config.inputs]
    folder = Folder(config.output)
    check_outside_inputs(folder.url, inputs)
    listing = list_inputs(inputs, read_options(config))
    job = describe(config, searching, reranking)
    check_output_folder(folder)
    on_ray = config.runner == "ray" or (config.runner == "auto" and connect.is_expected())
    device = "" if on_ray else placement.check_device(config, None)
    with lease.hold(folder) as mine:
        commit_log = CommitLog.load(folder)
        check_same_job(folder, commit_log, job)
        check_not_renamed(commit_log, listing.shards)
        spans = list(commit_log.remaining_work(listing.shards)) if not config.retry_errors else []
        # Connected before `stop_on_signals`: Ray takes SIGTERM for itself.
        resources = connect.connect(config.ray.address) if on_ray and (spans or config.retry_errors) else None
        if resources:
            device = placement.check_device(config, resources)

        write_job(folder, job)
        mine.start(commit_log, job)
        if config.retry_errors:
            taken_back = retry.uncommit_errors(folder, commit_log, listing.shards, mine, options=read_options(config))
            log.info(f"{taken_back} rows with errors are tried again")
            spans = list(commit_log.remaining_work(listing.shards))
        sweep(folder, commit_log, confirm=mine.confirm)
        plan = write_plan(folder, commit_log, spans)
        part_writer = PartWriter(
            folder,
            commit_log,
            file_format=config.format,
            rows_per_file=config.rows_per_file,
            commit_interval_s=config.commit_interval_s,
            confirm=mine.confirm,
            epoch=mine.epoch.id,
        )
        report = RunStats(
            commit_log, placement.slots(config, resources), expected_rows=_expected_rows(commit_log, spans)
        )
        progress = CaptionProgress(report, commit_log, plan, device)
        log.info(_start_line(config, listing, device, on_ray=on_ray))
        tables = captioned(config, [*searching, *reranking], spans, resources)
        metrics = Metrics() if resources else None
        stopped = _commit(config, tables, part_writer, report, progress=progress, metrics=metrics)
        code = _judge(config, folder, commit_log, listing, report, stopped=stopped)
        if code == 0:
            mine.confirm()
            if spans or not is_finished(folder, commit_log):  # else the record of the run that finished it stays
                run = {"run": report.record(), "device": device, "versions": _versions()}
                finish(folder, commit_log, job=job, run=run, confirm=mine.confirm)
            exports.write(folder, commit_log, vis=config.vis_json, coco=config.coco_json)
            summarise(config.output, commit_log, listing, report, device)
        return code


def _start_line(config: CaptionConfig, listing: Listing, device: str, *, on_ray: bool) -> str:
    names = " + ".join(config.captioner)
    parts = [
        describe_inputs(config.inputs, listing.shards),
        f"captioner {names}" if len(config.captioner) == 1 else f"captioners {names}",
        *([f"device {device}"] if device else []),
        f"{'ray' if on_ray else 'local'} runner",
    ]
    return "; ".join(parts)


def _expected_rows(commit_log: CommitLog, spans: list[Span]) -> int | None:
    """Returns the number of rows of the finished output; None if tars, tables or lists hide it."""
    return commit_log.rows + len(spans) if all(span.shard.image_id for span in spans) else None


def _commit(
    config: CaptionConfig,
    tables: Generator[pa.Table],
    part_writer: PartWriter,
    report: RunStats,
    *,
    progress: CaptionProgress,
    metrics: Metrics | None,
) -> bool:
    """Commits the tables; returns True if a signal asked to stop before the end."""
    announce, give_up = (
        partial(log.info, "stopping: committing what is done"),
        partial(_give_up, config.shutdown_timeout_s),
    )
    with stop_on_signals(announce, timeout_s=config.shutdown_timeout_s, give_up=give_up) as stop:
        for rows in progress.shown(stop.until_requested(tables)):
            report.count(rows)
            with report.writing():
                part_writer.write(rows)
            if metrics:
                metrics.publish(**report.totals(), rows_waiting=part_writer.rows_waiting)
            if report.exceeds_error_rate(config.max_error_rate, EARLY_STOP_ROWS):
                break
        with report.writing():
            part_writer.commit()
        if metrics:
            metrics.publish(**report.totals(), rows_waiting=0)
    return stop.requested


def _give_up(shutdown_timeout_s: float) -> None:
    """Ends the process at once, which the output survives at any instant."""
    log.error(
        f"interrupted: not all of what was done could be committed within {shutdown_timeout_s:g} s; "
        "the same command does the rest"
    )
    os._exit(cli.INTERRUPTED)


def _judge(
    config: CaptionConfig, folder: Folder, commit_log: CommitLog, listing: Listing, report: RunStats, *, stopped: bool
) -> int:
    """Returns the exit code, and logs why it is not 0."""
    code = judge(config, folder, commit_log, listing, report, min_rows=EARLY_STOP_ROWS if stopped else 0)
    if code == 0 and stopped:
        log.info(f"interrupted: {report.rows} rows are committed; the same command again does the rest")
        return cli.INTERRUPTED
    return code


def captioned(
    config: CaptionConfig, used: list[Path], spans: list[Span], resources: Resources | None
) -> Generator[pa.Table]:
    """Yields the captioned rows of the spans, on Ray if there are resources of a cluster, else in this process.

    Args:
        used: directories of all captioners, whose preprocessings the images need.
    """
    if not spans:
        return
    decode = DecodeStage(*map(checkpoint.load_preprocessing, used))
    caption = {
        "captioner": [_location_for_workers(captioner) for captioner in config.captioner],
        "search": config.search,
        "weights": config.captioner_weights,
        "rerank": replace(config.rerank, captioner=_location_for_workers(config.rerank.captioner)),
        "device": placement.device(config, resources),
        "dtype": config.dtype,
    }
    if not resources:
        from pipeline.inference.local_runner import run_local

        on_cuda = choose_device(config.device).type == "cuda"
        yield from run_local(
            spans,
            decode,
            caption,
            batch_images=config.batch_size or (CUDA_BATCH_IMAGES if on_cuda else CPU_BATCH_IMAGES),
            options=read_options(config),
            num_decode_threads=config.local.num_decode_threads,
        )
        return
    from pipeline.inference.ray_runner import run_ray

    num_gpus, most = placement.actors(config, resources)
    yield from run_ray(
        spans,
        decode,
        caption,
        batch_images=config.batch_size or (CUDA_BATCH_IMAGES if num_gpus else CPU_BATCH_IMAGES),
        options=read_options(config),
        actors=(min(config.ray.min_actors or most, most), most),
        actor_resources={"num_cpus": config.ray.num_cpus, "num_gpus": num_gpus},
        report_startup=report_startup,
    )


def _versions() -> dict[str, str]:
    found = {name: version(name) for name in ("torch", "torchvision", "pillow", "pyarrow")}
    return found | {"shardtalk": __version__, "python": platform.python_version()}


def _location_for_workers(captioner: str) -> str:
    """Returns an absolute path for a directory; workers look up a name in the zoo of the code shipped to them."""
    return str(Path(captioner).absolute()) if captioner and Path(captioner).exists() else captioner


if __name__ == "__main__":
    sys.exit(cli.main(["caption", *sys.argv[1:]]))
