"""Ray Data: tasks read and decode, an actor per core captions.

Tuned: blocks of a batch, reads that reserve little, cores divided so that decoding and captioning overlap.

`python -m benchmarks.rivals.ray_data FOLDER CAPTIONER OUTPUT eager|ours`
"""

from __future__ import annotations

import io
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray.data
from PIL import Image

from benchmarks.rivals.networks import BATCH_IMAGES, load
from model.captioner import checkpoint
from model.vision.preprocessing import Preprocessing

READ_CPUS, DECODE_CPUS, CAPTION_CPUS = 0.1, 0.2, 0.75

Batch = dict[str, Any]
"""Columns of a batch as arrays."""


class Captioning:
    """Holds a captioner in its actor."""

    def __init__(self, network: str, captioner: str) -> None:
        self._caption = load(network, captioner)

    def __call__(self, batch: Batch) -> Batch:
        """Captions a batch."""
        return {"path": batch["path"], "caption": self._caption(batch["pixels"])}


def decode(batch: Batch, preprocessing: Preprocessing) -> Batch:
    """Decodes and resizes."""
    pixels = [preprocessing.pixels(Image.open(io.BytesIO(data))) for data in batch["bytes"]]
    return {"path": batch["path"], "pixels": np.stack(pixels)}


def main(folder: str, captioner: str, output: str, network: str) -> None:
    """Captions the folder's JPEGs."""
    ray.init(include_dashboard=False, log_to_driver=False)
    blocks = -(-len(list(Path(folder).glob("*.jpg"))) // BATCH_IMAGES)
    files = ray.data.read_binary_files(
        folder, include_paths=True, override_num_blocks=blocks, ray_remote_args={"num_cpus": READ_CPUS}
    )
    decoded = files.map_batches(
        partial(decode, preprocessing=checkpoint.load_preprocessing(Path(captioner))),
        batch_size=BATCH_IMAGES,
        num_cpus=DECODE_CPUS,
    )
    captioned = decoded.map_batches(
        Captioning,
        fn_constructor_args=(network, captioner),
        batch_size=BATCH_IMAGES,
        compute=ray.data.ActorPoolStrategy(size=os.cpu_count()),
        num_cpus=CAPTION_CPUS,
    )
    captioned.write_parquet(output, ray_remote_args={"num_cpus": READ_CPUS})


if __name__ == "__main__":
    main(*sys.argv[1:])
