"""The decode stage: encoded images (`schema.ENCODED`) → the captioner's inputs. A picklable callable between tables."""

from __future__ import annotations

import time
from typing import Any

import pyarrow as pa

from pipeline.captioners.protocol import Inputs
from pipeline.errors import DataError
from pipeline.inference.input_columns import input_column
from pipeline.inference.pixel_columns import time_shares


class DecodeStage:
    """Decodes images to the form in which a captioner wants them."""

    def __init__(self, inputs: Inputs) -> None:
        self._column = input_column(inputs)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Replaces `image` by `pixels`, `width` and `height`; an image that cannot be decoded gets its error code.

        `pixels` is a column that `input_column` makes, null where there is an error.
        """
        began = time.perf_counter()
        found = {name: rows[name].to_pylist() for name in ("error_code", "error_message")}
        sizes: list[tuple[int, int] | tuple[None, None]] = [(None, None)] * len(rows)
        values: list[Any] = [None] * len(rows)
        for i, data in enumerate(rows["image"]):
            if data.is_valid:
                try:
                    values[i], sizes[i] = self._column.decode(data.as_py())
                except DataError as error:
                    found["error_code"][i], found["error_message"][i] = error.code, error.message
        columns = {name: pa.array(texts, pa.string()) for name, texts in found.items()}
        columns["pixels"] = self._column.column(values)
        columns["width"] = pa.array([width for width, _ in sizes], pa.int32())
        columns["height"] = pa.array([height for _, height in sizes], pa.int32())
        columns["decode_s"] = time_shares(time.perf_counter() - began, len(rows))
        return pa.table({name: rows[name] for name in rows.column_names if name not in {"image", *columns}} | columns)
