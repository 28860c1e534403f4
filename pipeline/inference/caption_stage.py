"""The caption stage: a captioner's inputs → rows of `schema.CAPTIONED`. A callable from table to table."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from model.captioner.base import Caption
from model.device import choose_device, keep_freed_memory
from model.errors import ModelError
from pipeline.captioners.batch_size import find_batch_size, in_batches, take_rows
from pipeline.captioners.failures import STOP_AFTER, CaptionerDiedError, FailureLimit, describe
from pipeline.captioners.protocol import ImageCaptioner
from pipeline.captioners.results import Result, checked, result_columns
from pipeline.errors import CaptionerError, DataError, PipelineError
from pipeline.inference.input_columns import input_column
from pipeline.inference.pixel_columns import time_shares
from pipeline.schema import CAPTIONED, ErrorCode, extended

log = logging.getLogger("shardtalk.caption")


class CaptionStage:
    """Captions decoded images. Loads the captioner, so there is one per process that captions.

    Args:
        captioner: any captioner.
        device: as for `ImageCaptioner.load`.
        stop_after: as for `FailureLimit`.
        trial_rows: number of rows on which `in_turn` finds the batch size by trial, if it is given as many; 0: it takes
            each table as a batch.
        begin_ahead: whether `in_turn` begins a batch while the one before it is captioned; None: on a GPU.
    """

    def __init__(
        self,
        captioner: ImageCaptioner,
        *,
        device: str = "auto",
        stop_after: int = STOP_AFTER,
        trial_rows: int = 0,
        begin_ahead: bool | None = None,
    ) -> None:
        keep_freed_memory()
        self._trial_rows, self._batch_size = trial_rows if captioner.may_be_tried else 0, 0
        self.begins_ahead = choose_device(device).type != "cpu" if begin_ahead is None else begin_ahead
        self._captioner, self._device, self._column = captioner, device, input_column(captioner.inputs)
        self._schema = extended(CAPTIONED, captioner.columns)
        self._limit = FailureLimit(captioner.name, stop_after)
        _load(captioner, device)

    @property
    def runs_on_cores(self) -> bool:
        """Whether several threads may call it at once, and each computes on cores of its own."""
        return self._captioner.is_thread_safe and choose_device(self._device).type == "cpu"

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Maps the output of a `DecodeStage` for the same inputs to rows of `schema.CAPTIONED`.

        Raises CaptionerError for a captioner that fails at every image, or does not do what the protocol asks.
        """
        return self._finish(_Batch(rows))

    def in_turn(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Captions tables as a call does, one after the other; on a GPU, each is begun before its turn.

        With `trial_rows`, their rows are divided into batches anew.
        """
        if self._trial_rows:
            tables = self._in_best_batches(iter(tables))
        begun = deque[_Batch]()
        for rows in tables:
            begun.append(self._begin(rows) if self.begins_ahead else _Batch(rows))
            if len(begun) > self.begins_ahead:
                yield self._finish(begun.popleft())
        yield from map(self._finish, begun)

    def _in_best_batches(self, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """Returns the rows of the tables in batches of the best size; the tables if rows are few or slow."""
        first = list[pa.Table]()
        if not self._batch_size:
            first = take_rows(tables, self._trial_rows)
            if sum(map(len, first)) < self._trial_rows:
                return chain(first, tables)
            images = pa.concat_tables(first)["pixels"].drop_null()
            batch = cache(lambda size: self._column.batch(images[:size]))
            try:
                found, rates = find_batch_size(lambda size: self._captioner.caption(batch(size)), largest=len(images))
            except CaptionerError:
                raise
            except Exception:  # the captioner's own, at an image that is found when its turn comes
                log.debug("no batch size was found", exc_info=True)
                self._trial_rows = 0
                return chain(first, tables)
            self._batch_size = found
            shown = ", ".join(f"{size}: {rate:,.0f}" for size, rate in rates.items())
            log.info(f"batches of {found} images, found by trial (images/s by size: {shown})")
        return in_batches(chain(first, tables), self._batch_size)

    def _begin(self, rows: pa.Table) -> _Batch:
        """Begins a batch, if nothing is in the way; what is, happens again and is reported when it is captioned."""
        batch = _Batch(rows)
        began = time.perf_counter()
        try:
            batch.begun = self._captioner.begin(self._column.batch(batch.images)) if len(batch.images) else None
        except CaptionerError:
            raise
        except Exception:
            log.debug("a batch could not be begun ahead", exc_info=True)
        batch.seconds = time.perf_counter() - began
        return batch

    def _finish(self, batch: _Batch) -> pa.Table:
        began, rows = time.perf_counter() - batch.seconds, batch.rows
        results: list[Result | None] = [None] * len(rows)
        errors = {name: rows[name].to_pylist() for name in ("error_code", "error_message")}
        captioned = self._captioned(batch.images, batch.begun)
        for i, result in zip(np.flatnonzero(batch.good.to_numpy()), captioned, strict=True):
            results[i] = result
            if isinstance(result, DataError):
                errors["error_code"][i], errors["error_message"][i] = result.code, result.message
        columns: dict[str, Any] = errors | result_columns(self._captioner, results)
        columns["batch_images"] = [len(rows)] * len(rows)
        columns["caption_s"] = time_shares(time.perf_counter() - began, len(rows))
        return pa.table(
            {
                field.name: pa.array(columns[field.name], field.type) if field.name in columns else rows[field.name]
                for field in self._schema
            },
            schema=self._schema,
        )

    def close(self) -> None:
        """Closes the captioner."""
        self._captioner.close()

    def _captioned(self, images: pa.ChunkedArray, begun: Any = None) -> list[Result]:
        """Captions a batch, in halves where it fails, so that a failure at one image costs only that one.

        Without memory for a batch, its halves need less. An image costs at most two calls more in each half.
        """
        if not len(images):
            return []
        is_out_of_memory = False
        try:
            returned = self._captioner.caption(self._column.batch(images) if begun is None else begun)
        except CaptionerError:
            raise
        except torch.OutOfMemoryError:
            is_out_of_memory = True
        except Exception as error:  # noqa: BLE001 - the captioner may be anybody's code
            has_died = isinstance(error, CaptionerDiedError)
            failure = DataError(ErrorCode.WORKER_DIED if has_died else ErrorCode.CAPTIONER_FAILED, describe(error))
        else:
            return self._counted(checked(self._captioner, returned, len(images)))
        if is_out_of_memory:  # outside of the handler, where the exception no longer holds tensors
            torch.cuda.empty_cache()
            failure = DataError(ErrorCode.OUT_OF_MEMORY, "the device has not enough memory to caption this image alone")
        half = len(images) // 2
        if half:
            return [*self._captioned(images[:half]), *self._captioned(images[half:])]
        return self._counted([failure])

    def _counted(self, results: list[Result]) -> list[Result]:
        if any(isinstance(result, Caption) for result in results):
            self._limit.captioned()
        for result in results:
            if isinstance(result, DataError) and result.code in (ErrorCode.CAPTIONER_FAILED, ErrorCode.WORKER_DIED):
                self._limit.failed(result.message)
        return results


class _Batch:
    """Rows to caption."""

    def __init__(self, rows: pa.Table) -> None:
        self.rows, self.good, self.images = rows, rows["pixels"].is_valid(), rows["pixels"]
        if self.images.null_count:  # otherwise they need not be copied
            self.images = self.images.filter(self.good)
        self.begun: Any = None
        """What the captioner's `begin` returned; None if it was not begun."""
        self.seconds = 0.0
        """Time that it has taken so far."""


def _load(captioner: ImageCaptioner, device: str) -> None:
    try:
        captioner.load(device)
    except (ModelError, PipelineError):
        raise
    except Exception as error:
        raise CaptionerError(
            f"captioner {captioner.name} cannot be loaded on the device {device}: {describe(error)}"
        ) from error
