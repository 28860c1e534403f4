"""The caption stage: a captioner's inputs → rows of `schema.CAPTIONED`. A callable from table to table."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from model.captioner.base import Caption
from model.device import choose_device, keep_freed_memory
from model.errors import ModelError
from pipeline.captioners.failures import STOP_AFTER, FailureLimit, describe
from pipeline.captioners.protocol import ImageCaptioner
from pipeline.captioners.results import Result, checked, result_columns
from pipeline.errors import CaptionerError, DataError, PipelineError
from pipeline.inference.input_columns import input_column
from pipeline.inference.pixel_columns import time_shares
from pipeline.schema import CAPTIONED, ErrorCode, extended


class CaptionStage:
    """Captions decoded images. Loads the captioner, so there is one per process that captions.

    Args:
        captioner: any captioner.
        device: as for `ImageCaptioner.load`.
        stop_after: as for `FailureLimit`.
    """

    def __init__(self, captioner: ImageCaptioner, *, device: str = "auto", stop_after: int = STOP_AFTER) -> None:
        keep_freed_memory()
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
        began = time.perf_counter()
        good = rows["pixels"].is_valid()
        results: list[Result | None] = [None] * len(rows)
        errors = {name: rows[name].to_pylist() for name in ("error_code", "error_message")}
        for i, result in zip(
            np.flatnonzero(good.to_numpy()), self._captioned(rows["pixels"].filter(good)), strict=True
        ):
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

    def _captioned(self, images: pa.ChunkedArray) -> list[Result]:
        """Captions a batch, in halves where it fails, so that a failure at one image costs only that one.

        Without memory for a batch, its halves need less. An image costs at most two calls more in each half.
        """
        if not len(images):
            return []
        is_out_of_memory = False
        try:
            returned = self._captioner.caption(self._column.batch(images))
        except CaptionerError:
            raise
        except torch.OutOfMemoryError:
            is_out_of_memory = True
        except Exception as error:  # noqa: BLE001 - the captioner may be anybody's code
            failure = DataError(ErrorCode.CAPTIONER_FAILED, describe(error))
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
            if isinstance(result, DataError) and result.code == ErrorCode.CAPTIONER_FAILED:
                self._limit.failed(result.message)
        return results


def _load(captioner: ImageCaptioner, device: str) -> None:
    try:
        captioner.load(device)
    except (ModelError, PipelineError):
        raise
    except Exception as error:
        raise CaptionerError(
            f"captioner {captioner.name} cannot be loaded on the device {device}: {describe(error)}"
        ) from error
