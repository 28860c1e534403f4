"""A plain captioning loop as baseline: one process, Pillow, batches, the same captioner and search, no overlap.

`python -m benchmarks.plain_loop FOLDER CAPTIONER BEAM_SIZE [keep]` prints {"images_per_s"}, without the first
batch. With "keep" it keeps freed memory, as our own processes do on the CPU (docs/decisions/0005): an expert's loop.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from PIL import Image

from configs.search import Search
from model.captioner import Captioner
from model.device import keep_freed_memory

BATCH_IMAGES = 32


def main(folder: str, captioner_directory: str, beam_size: str, keep: str = "") -> None:
    """Captions the folder's JPEGs."""
    if keep:
        keep_freed_memory()
    captioner = Captioner.load(captioner_directory)
    search = Search(beam_size=int(beam_size))
    files = sorted(Path(folder).glob("*.jpg"))
    captions, started = [], 0.0
    for first in range(0, len(files), BATCH_IMAGES):
        if first == BATCH_IMAGES:
            started = time.perf_counter()
        images = [Image.open(file).convert("RGB") for file in files[first : first + BATCH_IMAGES]]
        captions += captioner.caption(images, search)
    print(json.dumps({"images_per_s": (len(captions) - BATCH_IMAGES) / (time.perf_counter() - started)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
