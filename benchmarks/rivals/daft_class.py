"""Daft: its own threads read, decode and resize; a class holds the captioner and captions batches.

The captioner must stretch images, as Daft's `resize` does; pixels differ a little from Pillow's.

`python -m benchmarks.rivals.daft_class FOLDER CAPTIONER OUTPUT eager|ours`
"""

from __future__ import annotations

import sys
from pathlib import Path

import daft
import numpy as np

from benchmarks.rivals.networks import BATCH_IMAGES, load
from model.captioner import checkpoint


@daft.cls(max_concurrency=1)
class Captioning:
    """Holds a captioner, which uses all cores."""

    def __init__(self, network: str, captioner: str) -> None:
        self._caption = load(network, captioner)

    @daft.method.batch(return_dtype=daft.DataType.string(), batch_size=BATCH_IMAGES)  # type: ignore[untyped-decorator]
    def caption(self, pixels: daft.Series) -> list[str]:
        """Captions a batch."""
        return self._caption(np.stack(pixels.to_pylist()))


def main(folder: str, captioner: str, output: str, network: str) -> None:
    """Captions the folder's JPEGs."""
    size = checkpoint.load_preprocessing(Path(captioner)).image_size
    files = daft.from_glob_path(f"{folder}/*.jpg").select("path")
    pixels = daft.col("path").download().decode_image(mode="RGB").resize(size, size)
    captioning = Captioning(network, captioner)
    files.select("path", captioning.caption(pixels).alias("caption")).write_parquet(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
