"""The decode stage: encoded images (`schema.ENCODED`) → uint8 pixels. A picklable callable from table to table."""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa

from model.vision.preprocessing import Pixels, Preprocessing
from pipeline.errors import DataError
from pipeline.images.decoding import decode
from pipeline.inference.pixel_columns import as_column, pixel_bytes, time_shares


class DecodeStage:
    """Decodes images for the preprocessing of one or several captioners."""

    def __init__(self, *preprocessings: Preprocessing) -> None:
        self._views = list(dict.fromkeys(preprocessing.pixel_key for preprocessing in preprocessings))

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Replaces `image` by `pixels`, `width` and `height`; an image that cannot be decoded gets its error code.

        `pixels` is fixed-size binary, image_size × image_size × RGB bytes of each distinct view, one after the other,
        null where there is an error.
        """
        began = time.perf_counter()
        pixels = np.zeros((len(rows), sum(map(pixel_bytes, self._views))), np.uint8)
        found = {name: rows[name].to_pylist() for name in ("error_code", "error_message")}
        sizes: list[tuple[int, int] | tuple[None, None]] = [(None, None)] * len(rows)
        for i, data in enumerate(rows["image"]):
            if data.is_valid:
                try:
                    sizes[i] = self._decode(data.as_py(), pixels[i])
                except DataError as error:
                    found["error_code"][i], found["error_message"][i] = error.code, error.message
        columns = {name: pa.array(values, pa.string()) for name, values in found.items()}
        columns["pixels"] = as_column(pixels, valid=[code is None for code in found["error_code"]])
        columns["width"] = pa.array([width for width, _ in sizes], pa.int32())
        columns["height"] = pa.array([height for _, height in sizes], pa.int32())
        columns["decode_s"] = time_shares(time.perf_counter() - began, len(rows))
        return pa.table({name: rows[name] for name in rows.column_names if name not in {"image", *columns}} | columns)

    def _decode(self, data: bytes, pixels: Pixels) -> tuple[int, int]:
        """Fills `pixels`; returns width and height as displayed."""
        first, size = 0, (0, 0)
        for view in self._views:  # each decoded from the file, so that the result does not depend on the others
            found, size = decode(data, view)
            pixels[first : first + pixel_bytes(view)] = found.reshape(-1)
            first += pixel_bytes(view)
        return size
