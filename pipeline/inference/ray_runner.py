"""The Ray Data runner: tasks read and decode, a pool of actors captions. It yields the local runner's rows."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import ray.data
from ray.data import ExecutionResources
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from model.device import SINGLE_ARENA
from pipeline.errors import CaptionerError
from pipeline.inference.actor_startup import ReportStartup, report_until_first
from pipeline.inference.caption_stage import CaptionStage
from pipeline.inference.fault_isolation import CrashIsolated, Stage
from pipeline.inference.run_state import RemoteRunState
from pipeline.read_options import DEFAULTS, ReadOptions
from pipeline.readers import splitting
from pipeline.readers.reader import read
from pipeline.readers.splitting import split_spans
from pipeline.schema import ENCODED
from pipeline.shards import ShardFormat, Span

FILES_PER_TASK, BYTES_PER_TASK = 256, 64 << 20
"""Maximum number of shards, and their total size, in one read task; a larger shard has a task of its own."""
TASKS_PER_ACTOR = 4
"""Minimum number of read tasks per actor; with fewer shards, large ones are split."""
READ_CPUS = 0.1
"""CPUs reserved for a read task, which mostly waits."""


@dataclass(frozen=True)
class FlowLimits:
    """Limits of the work in flight per captioner: enough to keep it busy, and no more, as a crash loses it."""

    block_bytes: int
    """Size of a block between stages; small blocks let all captioners finish at about the same time."""
    blocks: int
    read_tasks: int
    """Number of concurrent read tasks."""
    batches: int
    """Number of batches given to a captioner at once, so that few batches are cut short at the end of a block."""


CPU_LIMITS = FlowLimits(block_bytes=4 << 20, blocks=16, read_tasks=2, batches=4)
GPU_LIMITS = FlowLimits(block_bytes=16 << 20, blocks=32, read_tasks=8, batches=2)
LIMITS_S = 10.0
"""Seconds after which the limits follow the size of the cluster."""
INIT_RETRIES, INIT_DEATHS = 2, 8
"""Retries of creating a captioner in one actor, and deaths of consecutive actors after which the job fails."""


class SpanDatasource(Datasource):
    """A Ray Data source of spans, with a read task for each large span or group of small ones.

    Args:
        spans: the spans to read.
        wanted: minimum number of tasks, if there are as many spans, or as many batches of images.
        batch_size, options: as for `readers.reader.read`.
    """

    def __init__(self, spans: Sequence[Span], *, wanted: int, batch_size: int, options: ReadOptions) -> None:
        least = batch_size if _are_images(spans) else 1
        self.groups = list(_grouped(spans, min(FILES_PER_TASK, max(least, len(spans) // wanted))))
        self._read = partial(read, batch_size=batch_size, options=options)

    def estimate_inmemory_data_size(self) -> int:
        """Returns the total encoded size of all spans in bytes."""
        return sum(_bytes(span) for group in self.groups for span in group)

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        """Returns a task per group of spans, regardless of `parallelism`."""
        return [
            ReadTask(
                partial(self._read, group),
                BlockMetadata(num_rows=None, size_bytes=sum(map(_bytes, group)), input_files=None, exec_stats=None),
                schema=ENCODED,
            )
            for group in self.groups
        ]


def _grouped(spans: Iterable[Span], files_per_task: int) -> Iterator[list[Span]]:
    group, group_bytes = list[Span](), 0
    for span in spans:
        span_bytes = _bytes(span)
        if group and (len(group) == files_per_task or group_bytes + span_bytes > BYTES_PER_TASK):
            yield group
            group, group_bytes = [], 0
        group.append(span)
        group_bytes += span_bytes
    if group:
        yield group


def _bytes(span: Span) -> int:
    return max(0, span.shard.size - span.offset)


def _are_images(spans: Sequence[Span]) -> bool:
    return all(span.shard.format == ShardFormat.IMAGE for span in spans)


class CaptionActor:
    """Creates a `CaptionStage` in its actor, and divides the rows of several batches evenly among them."""

    def __init__(self, state: RemoteRunState, make_caption_stage: Callable[[], CaptionStage], batch_size: int) -> None:
        self._state = state
        with self._reported():
            self._stage = make_caption_stage()
        self._caption = CrashIsolated(self._caption_divided, "caption", state)
        self._batch_size = batch_size
        state.add_this_actor()

    def __call__(self, rows: pa.Table) -> pa.Table:
        """As `CaptionStage`."""
        parts = [rows] if self._stage.begins_ahead else self._divided(rows)
        with self._reported():
            return pa.concat_tables([self._caption(part) for part in parts])

    def _caption_divided(self, rows: pa.Table) -> pa.Table:
        return pa.concat_tables(self._stage.in_turn(self._divided(rows)))

    def _divided(self, rows: pa.Table) -> list[pa.Table]:
        batches = max(1, -(-len(rows) // self._batch_size))
        size = -(-len(rows) // batches)
        return [rows.slice(i * size, size) for i in range(batches)]

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """Reports why the captioner cannot go on, which Ray's own exceptions lose on their way to the driver."""
        try:
            yield
        except CaptionerError as error:
            self._state.give_up(str(error))
            raise

    def __del__(self) -> None:
        """Closes the captioner, where Ray Data ends the actor."""
        if stage := getattr(self, "_stage", None):
            stage.close()


def _single_arena() -> dict[str, Any]:
    """Returns the options of an actor that starts it with one heap, as Ray calls the stages in a thread.

    They are empty where all workers are started so: a worker with options of its own is a new process.
    """
    given = os.environ | ray.get_runtime_context().runtime_env.get("env_vars", {})
    return {} if given.keys() >= SINGLE_ARENA.keys() else {"runtime_env": {"env_vars": SINGLE_ARENA}}


def _configure(context: ray.data.DataContext, limits: FlowLimits) -> None:
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    for reporter in ("exceptions", "_internal.execution.streaming_executor_state"):  # what they log is raised as well
        logging.getLogger(f"{ray.data.__name__}.{reporter}").setLevel(logging.CRITICAL)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it warns that its progress bar is off
    context.enable_progress_bars = False  # the job shows its own progress
    context.target_max_block_size = limits.block_bytes
    context.actor_init_retry_on_errors, context.actor_init_max_retries = True, INIT_RETRIES
    context.max_consecutive_actor_init_deaths = INIT_DEATHS


def _batches_at_once(spans: Sequence[Span], limits: FlowLimits, images_per_round: int) -> int:
    """Returns `FlowLimits.batches`, or fewer if all captioners would not get as many."""
    return max(1, min(limits.batches, len(spans) // images_per_round)) if _are_images(spans) else limits.batches


def _limited(
    tables: Iterable[pa.Table], context: ray.data.DataContext, limits: FlowLimits, fitting: Callable[[], int]
) -> Generator[pa.Table]:
    """Yields the tables, and limits the memory for work in flight by the number of captioners that fit meanwhile."""
    due = -math.inf
    for table in itertools.chain([None], tables):
        if time.monotonic() >= due:
            # Of the dataset that runs: Ray Data looks every second.
            context.execution_options.resource_limits = ExecutionResources.for_limits(
                object_store_memory=fitting() * limits.blocks * limits.block_bytes
            )
            due = time.monotonic() + LIMITS_S
        if table is not None:
            yield table


def run_ray(
    spans: Iterable[Span],
    decode: Stage,
    make_caption_stage: Callable[[], CaptionStage],
    *,
    batch_size: int,
    options: ReadOptions = DEFAULTS,
    actors: tuple[int, int | None],
    fitting: Callable[[], int],
    actor_resources: Mapping[str, float],
    report_startup: ReportStartup,
) -> Generator[pa.Table]:
    """Yields the captioned rows (`schema.CAPTIONED`) of the spans, in the order in which they are ready.

    Args:
        spans: the spans to caption.
        decode: the decode stage.
        make_caption_stage: called in each actor.
        batch_size: number of images per batch of the captioner.
        options: the options by which the shards are read.
        actors: minimum and maximum number of actors that hold a captioner; without a maximum, the pool grows with the
            cluster.
        fitting: returns the number of actors that fit on the cluster now.
        actor_resources: `num_cpus`, `num_gpus` and `memory` in bytes of each actor.
        report_startup: called with the number of captioners that are up, and the total, until there are rows.
    """
    limits = GPU_LIMITS if actor_resources.get("num_gpus") else CPU_LIMITS
    _configure(ray.data.DataContext.get_current(), limits)
    at_first = fitting()
    wanted = TASKS_PER_ACTOR * (actors[1] or at_first)
    pieces = split_spans(spans, min_pieces=wanted, piece_bytes=splitting.PIECE_BYTES, options=options)
    state = RemoteRunState.start()
    source = SpanDatasource(pieces, wanted=wanted, batch_size=batch_size, options=options)
    min_actors = min(actors[0], len(source.groups))
    actor = {**actor_resources, **_single_arena()}
    # Without a GPU both stages ask for the same, and Ray runs them in one actor: a core decodes and captions by turns.
    decoding = {} if actor_resources.get("num_gpus") else actor
    rows = (
        ray.data.read_datasource(
            source,
            override_num_blocks=len(source.groups),
            num_cpus=READ_CPUS,
            concurrency=min(actors[1] * limits.read_tasks, len(source.groups)) if actors[1] else None,
        )
        .map_batches(CrashIsolated(decode, "decode", state), batch_format="pyarrow", batch_size=None, **decoding)
        .map_batches(
            CaptionActor,
            fn_constructor_args=(state, make_caption_stage, batch_size),
            batch_format="pyarrow",
            batch_size=_batches_at_once(pieces, limits, batch_size * at_first) * batch_size,
            compute=ray.data.ActorPoolStrategy(min_size=min_actors, max_size=actors[1]),
            **actor,
        )
    )
    tables = rows.iter_batches(batch_format="pyarrow", batch_size=None)
    reported = report_until_first(tables, state.count, min_actors, report_startup)
    try:
        yield from _limited(reported, rows.context, limits, fitting)
    except Exception as error:
        if message := state.fatal_error():
            raise CaptionerError(message) from error
        raise
