"""A plain loop: one process, Pillow, batches, a file at the end.

`python -m benchmarks.rivals.plain_loop FOLDER CAPTIONER OUTPUT eager|ours`
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.rivals.networks import BATCH_IMAGES, load, open_pixels
from model.captioner import checkpoint


def main(folder: str, captioner: str, output: str, network: str) -> None:
    """Captions the folder's JPEGs."""
    caption, preprocessing = load(network, captioner), checkpoint.load_preprocessing(Path(captioner))
    paths = sorted(map(str, Path(folder).glob("*.jpg")))
    captions = []
    for first in range(0, len(paths), BATCH_IMAGES):
        batch = [open_pixels(path, preprocessing) for path in paths[first : first + BATCH_IMAGES]]
        captions += caption(np.stack(batch))
    pq.write_table(pa.table({"path": paths, "caption": captions}), output)


if __name__ == "__main__":
    main(*sys.argv[1:])
