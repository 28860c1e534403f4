"""neuraltalk2's network on one core, from image files to captions by its own search with 2 beams and random weights.

`python -m benchmarks.vgg16 FOLDER` prints {"images_per_s"}, without the first batch.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from PIL import Image

from configs.search import Search
from model.captioner import Captioner
from model.device import keep_freed_memory
from model.neuraltalk2.importer import PREPROCESSING
from model.nn.captioning_network import Architecture
from model.vocabulary import Vocabulary

BATCH_IMAGES = 16
WORDS = 9_567  # as in its published checkpoint


def main(folder: str) -> None:
    """Captions the folder's JPEGs."""
    keep_freed_memory()
    torch.set_num_threads(1)
    vocabulary = Vocabulary(tuple(f"word{i}" for i in range(WORDS)))
    network = Architecture(
        vocabulary_size=vocabulary.size, cnn="vgg16", embedding_size=512, hidden_size=512, max_tokens=16
    ).build()
    captioner = Captioner(network, vocabulary, PREPROCESSING, device=torch.device("cpu"), dtype=torch.float32)
    search = Search(method="neuraltalk2", beam_size=2)
    files = sorted(Path(folder).glob("*.jpg"))
    captions, started = [], 0.0
    for first in range(0, len(files), BATCH_IMAGES):
        if first == BATCH_IMAGES:
            started = time.perf_counter()
        captions += captioner.caption([Image.open(file) for file in files[first : first + BATCH_IMAGES]], search)
    print(json.dumps({"images_per_s": (len(captions) - BATCH_IMAGES) / (time.perf_counter() - started)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
