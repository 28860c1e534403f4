"""`shardtalk caption`: images to rows.

plan → read → decode → caption → write, on one of two runners that give the same rows. Every row is committed with a
record of its place in the input; the same command again reads the records and does what is left.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from cluster import connect
from cluster.connect import Resources
from configs.caption import CaptionConfig
from jobs import __version__, cli
from jobs.stopping import stop_requests
from model import checkpoint
from model.device import choose_device
from model.search import Search
from pipeline import captioners, exports, lease, output, retry
from pipeline.inputs import Listing, list_inputs
from pipeline.ledger import Ledger, Span
from pipeline.sink import Sink
from pipeline.stages import Decode
from pipeline.status import write_plan
from pipeline.storage import Folder

EARLY_STOP_ROWS = 1_000
"""From here on a run whose errors exceed `max_error_rate` is stopped rather than finished."""
SHOWN_EVERY_S = 30.0
CPU_BATCH_IMAGES, CUDA_BATCH_IMAGES = 32, 256


def run(config: CaptionConfig) -> int:
    """Captions the inputs; returns the exit code."""
    Search(**asdict(config.search))  # fails here rather than in a worker
    captioner = captioners.find(config.captioner)
    output.refuse_inside(config.output, config.inputs)
    listing = list_inputs(config.inputs)
    folder = Folder(config.output)
    job = describe(config, captioner)
    output.claim(folder, job)
    with lease.held(folder) as mine:
        ledger = Ledger.load(folder)
        if config.retry_errors:
            taken_back = retry.take_back(folder, ledger, listing.shards, confirm=mine.confirm)
            say(f"{taken_back} rows with errors are tried again")
        spans = list(ledger.left(listing.shards))
        output.sweep(folder, ledger)
        write_plan(folder, ledger, spans)

        progress = Progress.of(ledger)
        sink = Sink(
            folder,
            ledger,
            form=config.format,
            fragment_rows=config.fragment_rows,
            fragment_s=config.fragment_s,
            confirm=mine.confirm,
        )
        stopped = _caption_and_commit(config, captioner, spans, sink, progress)
        code = _judge(config, progress, stopped=stopped)
        if code == 0:
            if spans or not folder.exists(output.MANIFEST):  # else the record of the run that finished it stays
                output.finish(folder, ledger, job=job, run=progress.record())
            exports.write(folder, ledger, vis=config.vis_json, coco=config.coco_json)
            summarise(config.output, ledger, listing, progress)
        return code


def _caption_and_commit(
    config: CaptionConfig, captioner: Path, spans: list[Span], sink: Sink, progress: Progress
) -> bool:
    """Does the work, and says whether somebody asked to stop before it was done. What was done is committed."""
    on_ray = config.runner == "ray" or (config.runner == "auto" and connect.is_expected())
    resources = connect.connect(config.ray.address) if on_ray and spans else None
    announce, give_up = partial(say, "stopping: committing what is done"), partial(_give_up, config.grace_s)
    # After connecting: Ray takes SIGTERM for itself.
    with stop_requests(announce, grace_s=config.grace_s, give_up=give_up) as stop:
        tables = captioned(config, captioner, spans, resources)
        for rows in _shown(stop.until_requested(tables), progress, spans):
            sink.write(rows)
            progress.count(rows)
            if progress.is_rotten(config.max_error_rate, EARLY_STOP_ROWS):
                break
        sink.commit()
    return stop.requested


def _give_up(grace_s: float) -> None:
    """Ends the process at once. At any instant that leaves an output to go on with."""
    say(
        f"interrupted: not all of what was done could be committed within {grace_s:g} s; the same command does the rest"
    )
    os._exit(cli.INTERRUPTED)


def _judge(config: CaptionConfig, progress: Progress, *, stopped: bool) -> int:
    """The exit code; says why it is not 0."""
    if progress.is_rotten(config.max_error_rate, EARLY_STOP_ROWS if stopped else 0):
        say(f"failed: {progress.errors} of {progress.rows} rows are errors; max_error_rate is {config.max_error_rate}")
        return cli.FAILED
    if stopped:
        say(f"interrupted: {progress.rows} rows are committed; the same command again does the rest")
        return cli.INTERRUPTED
    return 0


def describe(config: CaptionConfig, captioner: Path) -> dict[str, Any]:
    """What decides the captions: jobs that differ in it must not share an output."""
    return {
        "captioner": {"name": captioner.name, "sha256": checkpoint.fingerprint(captioner)},
        "search": asdict(config.search),
        "dtype": config.dtype,
        "siblings": config.sibling_names,
        "format": config.format,
    }


def captioned(
    config: CaptionConfig, captioner: Path, spans: list[Span], resources: Resources | None
) -> Generator[pa.Table]:
    """The rows of the spans, from Ray where there are resources of a cluster, else from this process."""
    if not spans:
        return
    decode = Decode(checkpoint.load_preprocessing(captioner))
    caption = {
        "captioner": _as_workers_find_it(config.captioner),
        "search": asdict(config.search),
        "device": config.device,
        "dtype": config.dtype,
    }
    if not resources:
        from pipeline.local_runner import run_local

        on_cuda = choose_device(config.device).type == "cuda"
        yield from run_local(
            spans,
            decode,
            caption,
            batch_images=config.batch_images or (CUDA_BATCH_IMAGES if on_cuda else CPU_BATCH_IMAGES),
            siblings=config.sibling_names,
            decode_threads=config.local.decode_threads,
        )
        return
    from pipeline.ray_runner import run_ray

    num_gpus = config.ray.num_gpus if config.ray.num_gpus >= 0 else float(resources.num_gpus > 0)
    most = config.ray.max_actors or max(1, int(resources.num_gpus / num_gpus if num_gpus else resources.num_cpus))
    yield from run_ray(
        spans,
        decode,
        caption,
        batch_images=config.batch_images or (CUDA_BATCH_IMAGES if num_gpus else CPU_BATCH_IMAGES),
        siblings=config.sibling_names,
        actors=(min(config.ray.min_actors or most, most), most),
        actor_resources={"num_cpus": config.ray.num_cpus, "num_gpus": num_gpus},
    )


def _as_workers_find_it(captioner: str) -> str:
    """A name is looked for in the code they were shipped, a directory where it lies."""
    return str(Path(captioner).absolute()) if Path(captioner).exists() else captioner


@dataclass
class Progress:
    """Rows and errors, of this run and those before it."""

    before: int
    rows: int
    errors: int
    started: float

    @classmethod
    def of(cls, ledger: Ledger) -> Progress:
        """At the start of a run."""
        return cls(ledger.rows, ledger.rows, sum(ledger.errors.values()), time.time())

    def count(self, rows: pa.Table) -> None:
        """Counts captioned rows in."""
        self.rows += len(rows)
        self.errors += len(rows) - rows["error_code"].null_count

    def is_rotten(self, max_error_rate: float, least_rows: int) -> bool:
        """Whether too many of the rows are errors, where there are enough of them to judge."""
        return self.rows >= max(1, least_rows) and self.errors > max_error_rate * self.rows

    @property
    def seconds(self) -> float:
        """Since the start of this run."""
        return time.time() - self.started

    @property
    def images_per_s(self) -> float:
        """Of this run."""
        return (self.rows - self.before) / max(self.seconds, 1e-9)

    def record(self) -> dict[str, Any]:
        """Of this run, for the manifest."""
        return {
            "run": {
                "started": datetime.fromtimestamp(self.started, UTC).isoformat(timespec="seconds"),
                "seconds": round(self.seconds, 3),
                "rows": self.rows - self.before,
                "images_per_s": round(self.images_per_s, 2),
            },
            "versions": {name: version(name) for name in ("torch", "torchvision", "pillow", "pyarrow")}
            | {"shardtalk": __version__, "python": platform.python_version()},
        }


def _shown(tables: Generator[pa.Table], progress: Progress, spans: list[Span]) -> Iterator[pa.Table]:
    """The tables, with a progress bar on a terminal and a line now and then in a log; closes them in the end."""
    known = progress.before + len(spans) if all(span.shard.image_id for span in spans) else None
    bar = tqdm(total=known, initial=progress.before, unit="image", smoothing=0.1, disable=None, dynamic_ncols=True)
    with contextlib.closing(tables), bar:
        shown = time.monotonic()
        for rows in tables:
            yield rows
            bar.set_postfix(errors=progress.errors, refresh=False)
            bar.update(len(rows))
            if bar.disable and time.monotonic() >= shown + SHOWN_EVERY_S:
                shown = time.monotonic()
                say(f"{progress.rows:,} rows, {progress.errors:,} errors; {progress.images_per_s:.1f} images/s")


def summarise(where: str, ledger: Ledger, listing: Listing, progress: Progress) -> None:
    """Says what was done."""
    errors = sum(ledger.errors.values())
    run = progress.record()["run"]
    say(
        f"{ledger.rows - errors} captions and {errors} errors in {where};"
        f" this run {run['rows']} rows in {run['seconds']:.1f} s, {run['images_per_s']:.1f} images/s"
    )
    if errors:
        say("errors: " + ", ".join(f"{code} {count}" for code, count in ledger.errors.items()))
    if listing.ignored:
        kinds = ", ".join(f"{kind} {count}" for kind, count in listing.ignored.most_common())
        say(f"ignored {listing.ignored.total()} other files: {kinds}")


def say(text: str) -> None:
    """A line for the user, on stderr: stdout is for data."""
    tqdm.write(f"shardtalk caption: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(cli.main(["caption", *sys.argv[1:]]))
