"""Complete caption jobs on both runners: `jobs.caption` as the command runs it, timed."""

from __future__ import annotations

import shutil
import time
from importlib.util import find_spec
from itertools import accumulate
from unittest import mock

import pyarrow as pa

from benchmarks.gpu import inputs, limits
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.utilization import Utilization
from configs.caption import CaptionConfig
from configs.captioning import LocalConfig, RayConfig
from jobs import caption
from pipeline.inference.run_stats import RunStats
from pipeline.output.commit_log import CommitLog
from pipeline.storage.folder import Folder

IMPLAUSIBLE = 2.0
"""Factor of the slower stage's speed above which a measurement is not believed."""


class TimedRunStats(RunStats):
    """Records when rows arrive. Takes the place of `RunStats` in the job."""

    ready: list[tuple[float, int]] = []  # noqa: RUF012 - of the job that runs
    """`time.time()` and number of rows, for each table."""

    def count(self, rows: pa.Table) -> None:
        """As `RunStats.count`."""
        self.ready.append((time.time(), len(rows)))
        super().count(rows)


def local(bench: Bench) -> None:
    """Measures the local runner with a decoding thread per core; with one on a CPU, whose threads caption as well."""
    _job(bench, "local")


def ray(bench: Bench) -> None:
    """Measures the Ray runner with one actor on the GPU and decoding tasks on the cores."""
    if find_spec("ray"):
        _job(bench, "ray")
    else:
        bench.note("Ray is not installed; benchmarks/gpu_wheels_ray.txt says how to carry it", "skipped")


def _job(bench: Bench, runner: str) -> None:
    """Measures images/s over the second half of the images, after the pipeline has filled."""
    decoding, captioning = limits.decoding(bench, bench.cores), limits.captioning(bench)
    bench.figure(f"decode stage alone, {bench.cores} threads", decoding, "images/s")
    bench.figure("caption stage alone", captioning, "images/s")
    output = bench.scratch / f"captions-{runner}"
    shutil.rmtree(output, ignore_errors=True)
    config = CaptionConfig(
        output=str(output),
        inputs=[inputs.shards(bench)],
        captioner=[inputs.CAPTIONER],
        runner=runner,  # type: ignore[arg-type]
        device=bench.device.type,
        local=LocalConfig(num_threads=bench.cores if bench.device.type == "cuda" else 1),
        ray=RayConfig(num_gpus=float(bench.device.type == "cuda")),
    )
    TimedRunStats.ready.clear()
    with mock.patch.object(caption, "RunStats", TimedRunStats), Utilization(bench.device) as utilization:
        began = time.time()
        code = caption.run(config)
    commit_log, ready = CommitLog.load(Folder(str(output))), TimedRunStats.ready
    if code or commit_log.errors:
        bench.note(f"the job ended with exit code {code} and {dict(commit_log.errors)} errors", "failed")
        return
    bench.figure("images", commit_log.rows, "images")
    bench.figure("first rows after", ready[0][0] - began, "s")
    bench.figure("first commit after", min(commit.committed for commit in commit_log.commits) - began, "s")
    middle, later = _second_half(ready)
    images_per_s = later / max(ready[-1][0] - middle, 1e-9)
    if not later or images_per_s > IMPLAUSIBLE * min(decoding, captioning):
        bench.note("the rows came nearly at once: too few for a speed", "incomplete")
        return
    bench.figure("second half of the images", images_per_s, "images/s")
    bench.figure("share of the slower stage's", images_per_s / min(decoding, captioning), "")
    busy = utilization.mean(middle, ready[-1][0])
    if busy is not None:
        bench.figure("GPU utilisation by NVML", busy, "%")


def _second_half(ready: list[tuple[float, int]]) -> tuple[float, int]:
    """Returns the time at which half of the rows had arrived, and how many came later (those of one table at least)."""
    seen = list(accumulate(rows for _, rows in ready))
    middle = next(i for i, rows in enumerate(seen) if rows >= seen[-1] / 2 or i == len(seen) - 2)
    return ready[middle][0], seen[-1] - seen[middle]
