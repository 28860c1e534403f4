"""Captions on Ray Data: tasks read and decode, a pool of actors holds the captioner. Gives the local runner's rows."""

from __future__ import annotations

import logging
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline import splitting
from pipeline.bisection import Attempts, Bisected, Positions, Register, RowId, Stage
from pipeline.inputs import Form
from pipeline.ledger import Span
from pipeline.schema import ENCODED
from pipeline.source import read
from pipeline.splitting import split
from pipeline.stages import CaptionPixels

FILES_PER_TASK = 256
"""Image files that a task reads, where there are many."""
BLOCK_BYTES = 16 << 20
"""Of a block between stages: what an actor is given at a time, so at the end of a job none waits long for another."""
TASKS_PER_ACTOR = 4
"""With fewer shards than that, large ones are cut."""
READ_CPUS = 0.1
"""Of a task that reads: it mostly waits."""
INIT_RETRIES, INIT_DEATHS = 2, 8
"""Of making a captioner: in the same actor, and of actors one after the other, until the job fails."""


class SpanSource(Datasource):
    """Spans of shards as a Ray Data source: a read task per tar, or per few hundred image files.

    Args:
        spans: what to read.
        wanted: tasks at least, where image files can be shared out so.
        batch_images, siblings: as `source.read` takes them.
    """

    def __init__(self, spans: Sequence[Span], *, wanted: int, batch_images: int, siblings: Collection[str]) -> None:
        files = sum(span.shard.form == Form.IMAGE for span in spans)
        self.groups = list(_grouped(spans, min(FILES_PER_TASK, max(batch_images, files // wanted))))
        self._read = partial(read, batch_images=batch_images, siblings=siblings)

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of all spans, encoded."""
        return sum(_bytes(group) for group in self.groups)

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        """A task per group, whatever `parallelism` asks: a tar is read by one."""
        return [
            ReadTask(
                partial(self._read, group),
                BlockMetadata(num_rows=None, size_bytes=_bytes(group), input_files=None, exec_stats=None),
                schema=ENCODED,
            )
            for group in self.groups
        ]


def _grouped(spans: Iterable[Span], files_per_task: int) -> Iterator[list[Span]]:
    files: list[Span] = []
    for span in spans:
        if span.shard.form != Form.IMAGE:
            yield [span]
            continue
        files.append(span)
        if len(files) == files_per_task:
            yield files
            files = []
    if files:
        yield files


def _bytes(spans: list[Span]) -> int:
    return sum(max(0, span.shard.size - span.offset) for span in spans)


class RemoteAttempts:
    """`Attempts` in an actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def plan(self, rows: Sequence[RowId]) -> tuple[list[Positions], Positions] | None:
        """As `Attempts.plan`."""
        found: tuple[list[Positions], Positions] | None = ray.get(self._actor.plan.remote(rows))
        return found

    def begin(self, rows: Sequence[RowId]) -> None:
        """As `Attempts.begin`. Waits: if the rows kill this process, it must be known."""
        ray.get(self._actor.begin.remote(rows))

    def end(self, rows: Sequence[RowId]) -> None:
        """As `Attempts.end`."""
        self._actor.end.remote(rows)


class BisectedCaption(Bisected):
    """`CaptionPixels`, made where the actor is."""

    def __init__(self, attempts: Register, arguments: Mapping[str, Any]) -> None:
        super().__init__(CaptionPixels(**arguments), "caption", attempts)


def _attempts_here() -> RemoteAttempts:
    """On the driver's node: without that the job is over anyway."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return RemoteAttempts(ray.remote(Attempts).options(num_cpus=0, scheduling_strategy=here).remote())


def run_ray(
    spans: Iterable[Span],
    decode: Stage,
    caption_arguments: Mapping[str, Any],
    *,
    batch_images: int,
    siblings: Collection[str] = (),
    actors: tuple[int, int],
    actor_resources: Mapping[str, float],
) -> Generator[pa.Table]:
    """Yields the captioned rows (`schema.CAPTIONED`) of the spans, in the order in which they are ready.

    Args:
        caption_arguments: what `CaptionPixels` is made from, on each actor.
        batch_images: images the captioner gets at a time.
        siblings: as `source.read` takes them.
        actors: fewest and most that hold a captioner.
        actor_resources: `num_cpus` and `num_gpus` of each.
    """
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # warns that we show our own bar
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = BLOCK_BYTES
    context.enable_progress_bars = False  # the job shows its own
    wanted = TASKS_PER_ACTOR * actors[1]
    pieces = split(spans, wanted=wanted, piece_bytes=splitting.PIECE_BYTES)
    context.actor_init_retry_on_errors, context.actor_init_max_retries = True, INIT_RETRIES
    context.max_consecutive_actor_init_deaths = INIT_DEATHS
    attempts = _attempts_here()
    source = SpanSource(pieces, wanted=wanted, batch_images=batch_images, siblings=siblings)
    # Without a GPU both stages ask for the same, and Ray runs them in one actor: a core decodes and captions by turns.
    decoding = {} if actor_resources.get("num_gpus") else actor_resources
    rows = (
        ray.data.read_datasource(source, override_num_blocks=len(source.groups), num_cpus=READ_CPUS)
        .map_batches(Bisected(decode, "decode", attempts), batch_format="pyarrow", batch_size=None, **decoding)
        .map_batches(
            BisectedCaption,
            fn_constructor_args=(attempts, dict(caption_arguments)),
            batch_format="pyarrow",
            batch_size=batch_images,
            compute=ray.data.ActorPoolStrategy(min_size=min(actors[0], len(source.groups)), max_size=actors[1]),
            **actor_resources,
        )
    )
    yield from rows.iter_batches(batch_format="pyarrow", batch_size=None)
