"""Captions on Ray Data: tasks read and decode, a pool of actors holds the captioner. Gives the local runner's rows."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import ray.data
from ray.data import ExecutionResources
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from model.device import SINGLE_ARENA
from pipeline.inference.actor_startup import (
    RemoteStartupCounter,
    ReportStartup,
    StartupCounter,
    report_until_first,
)
from pipeline.inference.fault_isolation import AttemptTracker, CrashIsolated, RowId, RowPositions, Stage, Tracker
from pipeline.inference.stages import CaptionStage
from pipeline.read_options import DEFAULTS, ReadOptions
from pipeline.readers import splitting
from pipeline.readers.reader import read
from pipeline.readers.splitting import split_spans
from pipeline.schema import ENCODED
from pipeline.shards import Span

FILES_PER_TASK, BYTES_PER_TASK = 256, 64 << 20
"""Shards that a task reads, one after the other, where there are many; a large one has a task of its own."""
TASKS_PER_ACTOR = 4
"""With fewer shards than that, large ones are cut."""
READ_CPUS = 0.1
"""Of a task that reads: it mostly waits."""


@dataclass(frozen=True)
class FlowLimits:
    """How much is under way for each captioner: enough that it never waits, and no more, for a crash loses it."""

    block_bytes: int
    """Of a block between stages: what a captioner is given at a time, so at the end none waits long for another."""
    blocks: int
    read_tasks: int
    """Tasks that read at the same time."""
    batches: int
    """Given to a captioner at a time, so that few are cut short where blocks end."""


CPU_LIMITS = FlowLimits(block_bytes=4 << 20, blocks=16, read_tasks=2, batches=4)
GPU_LIMITS = FlowLimits(block_bytes=16 << 20, blocks=32, read_tasks=8, batches=2)
INIT_RETRIES, INIT_DEATHS = 2, 8
"""Of making a captioner: in the same actor, and of actors one after the other, until the job fails."""


class SpanDatasource(Datasource):
    """Spans of shards as a Ray Data source: a read task for each, or for some small ones.

    Args:
        spans: what to read.
        wanted: tasks at least, where there are as many spans.
        batch_images, options: as `source.read` takes them.
    """

    def __init__(self, spans: Sequence[Span], *, wanted: int, batch_images: int, options: ReadOptions) -> None:
        self.groups = list(_grouped(spans, max(1, min(FILES_PER_TASK, len(spans) // wanted))))
        self._read = partial(read, batch_images=batch_images, options=options)

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of all spans, encoded."""
        return sum(_bytes(span) for group in self.groups for span in group)

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        """A task per group, whatever `parallelism` asks: they are what they are."""
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


class RemoteAttemptTracker:
    """`AttemptTracker` in an actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def plan(self, rows: Sequence[RowId]) -> tuple[list[RowPositions], RowPositions] | None:
        """As `AttemptTracker.plan`."""
        found: tuple[list[RowPositions], RowPositions] | None = ray.get(self._actor.plan.remote(rows))
        return found

    def begin(self, rows: Sequence[RowId]) -> None:
        """As `AttemptTracker.begin`. Waits: if the rows kill this process, it must be known."""
        ray.get(self._actor.begin.remote(rows))

    def end(self, rows: Sequence[RowId]) -> None:
        """As `AttemptTracker.end`."""
        self._actor.end.remote(rows)


class CaptionActor:
    """`CaptionStage`, made where the actor is. Is given several batches' rows, and shares them out evenly."""

    def __init__(
        self, tracker: Tracker, startup: RemoteStartupCounter, arguments: Mapping[str, Any], batch_images: int
    ) -> None:
        self._caption = CrashIsolated(CaptionStage(**arguments), "caption", tracker)
        self._batch_images = batch_images
        startup.add_this_actor()

    def __call__(self, rows: pa.Table) -> pa.Table:
        """As `CaptionStage`."""
        batches = max(1, -(-len(rows) // self._batch_images))
        size = -(-len(rows) // batches)
        return pa.concat_tables([self._caption(rows.slice(i * size, size)) for i in range(batches)])


def _start_actor(actor_class: type) -> Any:
    """Starts an actor on the driver's node, without which the job is over anyway."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(actor_class).options(num_cpus=0, scheduling_strategy=here).remote()


def _configure(context: ray.data.DataContext, limits: FlowLimits, actors: int) -> None:
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # warns that we show our own bar
    context.enable_progress_bars = False  # the job shows its own
    context.target_max_block_size = limits.block_bytes
    context.execution_options.resource_limits = ExecutionResources.for_limits(
        object_store_memory=actors * limits.blocks * limits.block_bytes
    )
    context.actor_init_retry_on_errors, context.actor_init_max_retries = True, INIT_RETRIES
    context.max_consecutive_actor_init_deaths = INIT_DEATHS


def run_ray(
    spans: Iterable[Span],
    decode: Stage,
    caption_arguments: Mapping[str, Any],
    *,
    batch_images: int,
    options: ReadOptions = DEFAULTS,
    actors: tuple[int, int],
    actor_resources: Mapping[str, float],
    report_startup: ReportStartup,
) -> Generator[pa.Table]:
    """Yields the captioned rows (`schema.CAPTIONED`) of the spans, in the order in which they are ready.

    Args:
        caption_arguments: what `CaptionStage` is made from, on each actor.
        batch_images: images the captioner gets at a time.
        options: how shards are read.
        actors: fewest and most that hold a captioner.
        actor_resources: `num_cpus` and `num_gpus` of each.
        report_startup: called with how many captioners are up, and how many there will be, while there are no rows yet.
    """
    limits = GPU_LIMITS if actor_resources.get("num_gpus") else CPU_LIMITS
    _configure(ray.data.DataContext.get_current(), limits, actors[1])
    wanted = TASKS_PER_ACTOR * actors[1]
    pieces = split_spans(spans, min_pieces=wanted, piece_bytes=splitting.PIECE_BYTES, options=options)
    tracker, startup = (
        RemoteAttemptTracker(_start_actor(AttemptTracker)),
        RemoteStartupCounter(_start_actor(StartupCounter)),
    )
    source = SpanDatasource(pieces, wanted=wanted, batch_images=batch_images, options=options)
    min_actors = min(actors[0], len(source.groups))
    actor = {**actor_resources, "runtime_env": {"env_vars": SINGLE_ARENA}}  # which calls its stages in a thread
    # Without a GPU both stages ask for the same, and Ray runs them in one actor: a core decodes and captions by turns.
    decoding = {} if actor_resources.get("num_gpus") else actor
    rows = (
        ray.data.read_datasource(
            source,
            override_num_blocks=len(source.groups),
            num_cpus=READ_CPUS,
            concurrency=actors[1] * limits.read_tasks,
        )
        .map_batches(CrashIsolated(decode, "decode", tracker), batch_format="pyarrow", batch_size=None, **decoding)
        .map_batches(
            CaptionActor,
            fn_constructor_args=(tracker, startup, dict(caption_arguments), batch_images),
            batch_format="pyarrow",
            batch_size=limits.batches * batch_images,
            compute=ray.data.ActorPoolStrategy(min_size=min_actors, max_size=actors[1]),
            **actor,
        )
    )
    tables = rows.iter_batches(batch_format="pyarrow", batch_size=None)
    yield from report_until_first(tables, startup.count, min_actors, report_startup)
