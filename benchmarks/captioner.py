"""The captioner alone, on pixels that are ready.

`python -m benchmarks.captioner DIRECTORY METHOD WAY` prints {"images_per_s"} of batches of 32 random images. METHOD is
"beam" (of 5) or "greedy"; WAY is "frozen", `Captioner` with a thread on each core, as the local runner has it, or
"trained", one call after the other of the modules as training runs them.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from configs.search import Search
from model.captioner import Captioner, checkpoint
from model.decoding.search import generate
from model.device import keep_freed_memory

BATCH_IMAGES, BATCHES = 32, 8


def main(directory: str, method: str, way: str) -> None:
    """Captions a batch on each thread to warm up, then measures."""
    keep_freed_memory()
    captioner = Captioner.load(directory)
    size, random = captioner.preprocessing.image_size, np.random.default_rng(0)
    pixels = random.integers(0, 256, (BATCH_IMAGES, size, size, 3), dtype=np.uint8)
    search = Search(method="greedy") if method == "greedy" else Search(beam_size=5)
    network, vocabulary, preprocessing = checkpoint.load(Path(directory))
    network = network.eval().to(memory_format=torch.channels_last)

    def caption(_: int) -> None:
        if way == "frozen":
            captioner.caption_pixels(pixels, search)
            return
        with torch.inference_mode():
            embeddings = network.encoder(preprocessing.normalize(torch.from_numpy(pixels)))
        generate(search, network.decoder, embeddings, suppressed_ids=vocabulary.suppressed_ids)

    cores = torch.get_num_threads()
    threads = cores if way == "frozen" else 1
    with ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(cores // threads)) as pool:
        list(pool.map(caption, range(threads)))
        started = time.perf_counter()
        list(pool.map(caption, range(BATCHES)))
    print(json.dumps({"images_per_s": BATCH_IMAGES * BATCHES / (time.perf_counter() - started)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
