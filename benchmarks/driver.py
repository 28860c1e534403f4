"""The rate at which a driver takes rows: those of a stub, through Ray's blocks, to committed parts.

`python -m benchmarks.driver` prints a row for each size of the blocks; docs/scale.md has them. Workers neither read nor
decode nor caption, so what remains is the cost of a row and of a block, in our part of the driver and in Ray's. The
driver's CPU time says what it can do with a core to itself.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa

import jobs.caption
import pipeline.inference.ray_runner
from benchmarks.stubs import StubCaption, make_captioner
from configs.partition import Partition
from jobs import cli
from jobs.captioning import flow
from pipeline.output.commit_log import CommitLog
from pipeline.schema import ENCODED
from pipeline.shards import Span
from pipeline.storage.folder import Folder

CHECKOUT = Path(__file__).parents[1]
LIMITS = pipeline.inference.ray_runner.CPU_LIMITS
BALLAST = bytes(100)
"""Contents of an image, so that rows with images are larger than those with captions, as they are in a job."""
ROW_BYTES = 200
"""Less than the size of a row with an image, more than half of it: each table of rows becomes a block."""
BLOCK_ROWS = (256, 1024, 4096, 16384)
MICROSECONDS = 1e6


class ReadyRows:
    """Yields rows as the reader does, without images. Takes the place of `ray_runner.read`.

    Args:
        rows: number of rows of each shard.
        block_rows: number of rows of a table.
    """

    def __init__(self, rows: int, block_rows: int) -> None:
        self._rows, self._block_rows = rows, block_rows

    def __call__(self, spans: Iterable[Span], **_: Any) -> Iterator[pa.Table]:
        """As `read`."""
        for span in spans:
            for start in range(span.start, self._rows, self._block_rows):
                yield self._table(span, np.arange(start, min(start + self._block_rows, self._rows)))

    def _table(self, span: Span, indexes: np.ndarray[Any, np.dtype[np.int64]]) -> pa.Table:
        count = len(indexes)
        values = {
            "image_id": pa.array([f"{index:09}" for index in indexes.tolist()]),
            "shard": pa.array([span.shard.path] * count),
            "shard_id": pa.array([span.shard.id] * count),
            "index": pa.array(indexes),
            "next_offset": pa.array((indexes + 1) * 512),
            "last": pa.array(indexes == self._rows - 1),
            "num_bytes": pa.array(np.full(count, 100_000)),
            "image": pa.array([BALLAST] * count, pa.large_binary()),
            "read_s": pa.array(np.full(count, 1e-6, np.float32)),
        }
        return pa.table([values.get(field.name, pa.nulls(count, field.type)) for field in ENCODED], schema=ENCODED)


class NoDecoding:
    """Returns rows as they are. Takes the place of the decode stage."""

    def __init__(self, *_: object) -> None:
        pass

    def __call__(self, rows: pa.Table) -> pa.Table:
        """As `DecodeStage`."""
        return rows


class Clock:
    """Measures from the first table on, what the consumer of tables takes, and all of this process."""

    def __init__(self) -> None:
        self.rows = self.blocks = 0
        self.wall_s = self.cpu_s = self.ours_s = 0.0

    def watch(self, tables: Generator[pa.Table]) -> Generator[pa.Table]:
        """Yields the tables; the first is not counted."""
        wall_s = cpu_s = 0.0
        for number, table in enumerate(tables):
            if number == 0:
                wall_s, cpu_s = time.perf_counter(), time.process_time()
            began_s = time.thread_time()
            yield table
            if number:
                self.ours_s += time.thread_time() - began_s
                self.rows += len(table)
                self.blocks += 1
        self.wall_s, self.cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s


def job(rows: int, block_rows: int, arguments: list[str]) -> int:
    """Runs the caption job with the stubs in place, and prints what its driver took; returns its exit code."""
    clock, real = Clock(), flow.caption_spans

    def watched(*given: Any) -> Generator[pa.Table]:
        return clock.watch(real(*given))

    stubs: dict[str, Any] = {
        "CaptionActor": StubCaption,
        "read": ReadyRows(rows, block_rows),
        "CPU_LIMITS": replace(LIMITS, block_bytes=ROW_BYTES * block_rows),
    }
    with (
        mock.patch.multiple(pipeline.inference.ray_runner, **stubs),
        mock.patch.object(flow, "DecodeStage", NoDecoding),
        mock.patch.object(jobs.caption, "caption_spans", watched),
    ):
        code = cli.main(["caption", *arguments])
    print(json.dumps(vars(clock)))
    return code


class Bench:
    """Runs drivers.

    Args:
        scratch: folder for inputs and outputs.
        shards: number of shards.
        rows: number of rows of each shard.
    """

    def __init__(self, scratch: Path, shards: int, rows: int) -> None:
        self.scratch, self.shards, self.rows = scratch, shards, rows
        self.outputs = 0
        (scratch / "in").mkdir()
        for i in range(shards):
            (scratch / "in" / f"{i:06}.tar").write_bytes(bytes(1024))
        make_captioner(scratch / "stub")

    def start(self, output: str, block_rows: int, *options: str) -> subprocess.Popen[str]:
        """Starts a driver."""
        usual = [self.scratch / "in", "--output", self.scratch / output, "--captioner", self.scratch / "stub"]
        sizes = ["--batch_size", block_rows // LIMITS.batches, "--rows_per_file", 100_000, "--runner", "ray"]
        command = [sys.executable, "-m", "benchmarks.driver", "--job", self.rows, block_rows, *usual, *sizes, *options]
        return subprocess.Popen(
            [*map(str, command)], cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def measure(self, block_rows: int, drivers: int = 1) -> None:
        """Measures drivers that share an output, and prints a row."""
        self.outputs += 1
        output = f"out{self.outputs}"
        partitions = [Partition(number, drivers) for number in range(1, drivers + 1)]
        options = [("--partition", str(partition)) if drivers > 1 else () for partition in partitions]
        running = [self.start(output, block_rows, *each) for each in options]
        said = [process.communicate() for process in running]
        assert not any(process.returncode for process in running), [err[-2000:] for _, err in said]
        assert CommitLog.load(Folder(str(self.scratch / output))).rows == self.shards * self.rows
        clocks = [json.loads(out.splitlines()[-1]) for out, _ in said]
        rows, blocks, cpu_s, ours_s = (
            sum(clock[name] for clock in clocks) for name in ("rows", "blocks", "cpu_s", "ours_s")
        )
        wall_s = max(clock["wall_s"] for clock in clocks)
        print(
            f"| {drivers} | {rows / blocks:,.0f} | {rows / wall_s:,.0f} | {drivers * rows / cpu_s:,.0f} |"
            f" {ours_s / rows * MICROSECONDS:.2f} | {(cpu_s - ours_s) / rows * MICROSECONDS:.2f} |",
            flush=True,
        )


def main() -> int:
    """Prints the table, or runs one of its jobs."""
    if sys.argv[1:2] == ["--job"]:
        return job(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks.driver", description=__doc__)
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--rows", type=int, default=32_768, help="of each shard")
    parser.add_argument("--block_rows", type=int, nargs="*", default=BLOCK_ROWS)
    parser.add_argument("--drivers", type=int, nargs="*", default=(1,))
    options = parser.parse_args()
    print("| drivers | rows a block | rows/s | rows/s of a core each | our part, µs a row | Ray's, µs a row |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(Path(scratch), options.shards, options.rows)
        for drivers in options.drivers:
            for block_rows in options.block_rows:
                bench.measure(block_rows, drivers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
