"""The network as rivals get it: "eager", as a user of PyTorch would call its modules, or "ours", our `Captioner`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from benchmarks.rivals.clock import tick
from configs.search import Search
from model.captioner import Captioner, checkpoint
from model.decoding.search import generate
from model.device import keep_freed_memory
from model.vision.preprocessing import Pixels, Preprocessing

BATCH_IMAGES = 32
SEARCH = Search(beam_size=5)

CaptionBatch = Callable[[Pixels], list[str]]
"""(B, image_size, image_size, 3) uint8 → B captions."""


def load(network: str, captioner: str) -> CaptionBatch:
    """Loads the captioner in a directory; each batch is recorded by the clock.

    Args:
        network: "eager" or "ours"; the latter keeps freed memory, as our own processes do.
    """
    caption = _ours(captioner) if network == "ours" else _eager(captioner)

    def caption_and_tick(pixels: Pixels) -> list[str]:
        captions = caption(pixels)
        tick(len(captions))
        return captions

    return caption_and_tick


def _ours(directory: str) -> CaptionBatch:
    keep_freed_memory()
    captioner = Captioner.load(directory)
    return lambda pixels: [caption.text for caption in captioner.caption_pixels(pixels, SEARCH)]


def _eager(directory: str) -> CaptionBatch:
    network, vocabulary, preprocessing = checkpoint.load(Path(directory))
    network = network.eval().to(memory_format=torch.channels_last)

    def caption(pixels: Pixels) -> list[str]:
        with torch.inference_mode():
            embeddings = network.encoder(preprocessing.normalize(torch.from_numpy(pixels)))
        found = generate(SEARCH, network.decoder, embeddings, suppressed_ids=vocabulary.suppressed_ids)
        return [vocabulary.decode(candidates[0].words) for candidates in found]

    return caption


def open_pixels(path: str | Path, preprocessing: Preprocessing) -> Pixels:
    """Decodes and resizes a file, as Pillow's users do."""
    with Image.open(path) as image:
        return preprocessing.pixels(image)
