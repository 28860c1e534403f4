"""Decoding alone, on one core.

`python -m benchmarks.decoding FOLDER SIZE WAY` prints {"images_per_s"} of JPEGs made SIZE×SIZE pixels. WAY is
"stage", the decode stage for a captioner that `shardtalk train` makes, or "pillow", Pillow as a user would call it.
"""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from model.vision.preprocessing import Preprocessing
from pipeline.inference.decode_stage import DecodeStage

ROWS = 64


def main(folder: str, size: str, way: str) -> None:
    """Decodes the folder's images twice; the second time counts."""
    torch.set_num_threads(1)
    side = int(size)
    images = [file.read_bytes() for file in sorted(Path(folder).glob("*.jpg"))]
    stage = DecodeStage([Preprocessing(image_size=side, resize_size=side, resampling="antialias")])

    def by_stage(some: list[bytes]) -> None:
        nothing = pa.nulls(len(some), pa.string())
        stage(pa.table({"image": pa.array(some), "error_code": nothing, "error_message": nothing}))

    def by_pillow(some: list[bytes]) -> None:
        for data in some:
            image = Image.open(io.BytesIO(data))
            image.draft("RGB", (side, side))
            np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))

    decode = by_stage if way == "stage" else by_pillow
    for _ in range(2):
        started = time.perf_counter()
        for first in range(0, len(images), ROWS):
            decode(images[first : first + ROWS])
    print(json.dumps({"images_per_s": len(images) / (time.perf_counter() - started)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
