"""The column `pixels` between the stages, for each form in which a captioner may want its images (`Inputs`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from PIL import Image

from model.vision.orientation import orientation, shown_size, upright
from model.vision.preprocessing import Preprocessing, draft_jpeg
from pipeline.captioners.protocol import EncodedImages, Inputs, RgbImages
from pipeline.images.decoding import Size, decode, load, rgb
from pipeline.inference.pixel_columns import as_column, as_pixels, as_views, pixel_bytes


class InputColumn(Protocol):
    """Fills the column where images are decoded, and reads batches from it where they are captioned."""

    def decode(self, data: bytes) -> tuple[Any, Size]:
        """Decodes a file; returns the column's value, and width and height as displayed. Raises DataError."""

    def column(self, values: Sequence[Any]) -> pa.Array:
        """Makes the column from the values of `decode`; None where there is an error."""

    def batch(self, column: pa.ChunkedArray) -> Any:
        """Returns the batch for a captioner; the column has no nulls."""


class PixelColumn:
    """Square pixels: fixed-size binary, those of each distinct view one after the other.

    Args:
        preprocessings: of which those with the same `Preprocessing.pixel_key` are one view.
    """

    def __init__(self, preprocessings: Sequence[Preprocessing]) -> None:
        self._views = list(dict.fromkeys(preprocessing.pixel_key for preprocessing in preprocessings))

    def decode(self, data: bytes) -> tuple[Any, Size]:
        """As `InputColumn.decode`. Each view is decoded from the file, so that it does not depend on the others."""
        found = [decode(data, view) for view in self._views]
        return [pixels.reshape(-1) for pixels, _ in found], found[-1][1]

    def column(self, values: Sequence[Any]) -> pa.Array:
        """As `InputColumn.column`."""
        pixels = np.zeros((len(values), sum(map(pixel_bytes, self._views))), np.uint8)
        for i, parts in enumerate(values):
            if parts is not None:
                np.concatenate(parts, out=pixels[i])
        return as_column(pixels, valid=[parts is not None for parts in values])

    def batch(self, column: pa.ChunkedArray) -> Any:
        """As `InputColumn.batch`, without a copy if the column is in one chunk."""
        return as_views(as_pixels(column), self._views)


class RgbColumn:
    """Images of any size: a struct of width, height and RGB bytes."""

    kind = pa.struct([("width", pa.int32()), ("height", pa.int32()), ("rgb", pa.large_binary())])

    def __init__(self, images: RgbImages) -> None:
        self._max_side = images.max_side

    def decode(self, data: bytes) -> tuple[Any, Size]:
        """As `InputColumn.decode`."""
        side = self._max_side
        image, size = load(data, draft=(lambda image: draft_jpeg(image, (side, side))) if side else None)
        turned, image = orientation(image), rgb(image)
        if side and max(size) > side:
            small = shown_size(
                (max(1, round(size[0] * side / max(size))), max(1, round(size[1] * side / max(size)))), turned
            )
            image = image.resize(small, Image.Resampling.BICUBIC)
        pixels = upright(np.asarray(image), turned)
        return {"width": pixels.shape[1], "height": pixels.shape[0], "rgb": pixels.tobytes()}, size

    def column(self, values: Sequence[Any]) -> pa.Array:
        """As `InputColumn.column`."""
        return pa.array(values, self.kind)

    def batch(self, column: pa.ChunkedArray) -> Any:
        """As `InputColumn.batch`: PIL images in RGB."""
        return [Image.frombytes("RGB", (one["width"], one["height"]), one["rgb"]) for one in column.to_pylist()]


class EncodedColumn:
    """The files as they are. Each is decoded once, so that a captioner is given none that cannot be."""

    def decode(self, data: bytes) -> tuple[Any, Size]:
        """As `InputColumn.decode`."""
        return data, load(data)[1]

    def column(self, values: Sequence[Any]) -> pa.Array:
        """As `InputColumn.column`."""
        return pa.array(values, pa.large_binary())

    def batch(self, column: pa.ChunkedArray) -> Any:
        """As `InputColumn.batch`: bytes."""
        return column.to_pylist()


def input_column(inputs: Inputs) -> InputColumn:
    """Returns the column of a form of input."""
    if isinstance(inputs, RgbImages):
        return RgbColumn(inputs)
    return EncodedColumn() if isinstance(inputs, EncodedImages) else PixelColumn(inputs)
