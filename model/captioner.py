"""Images in, captions out.

>>> captioner = Captioner.load("flickr8k-mobilenet-v2")
>>> captioner.caption([PIL.Image.open("dog.jpg")])[0].text
'a dog runs through the grass'
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from model import checkpoint
from model.device import autocast, choose_device, choose_dtype
from model.network import Network
from model.preprocessing import Pixels, Preprocessing
from model.search import Search
from model.vocabulary import Vocabulary


@dataclass(frozen=True)
class Candidate:
    """A caption and how probable the captioner finds it."""

    text: str
    log_prob: float
    """Sum of the natural-log probabilities of its tokens."""
    num_tokens: int
    """Its words and END."""


@dataclass(frozen=True)
class Caption:
    """The captions found for an image."""

    candidates: list[Candidate]
    """Best first, at least one."""

    @property
    def text(self) -> str:
        """The best caption."""
        return self.candidates[0].text


class Captioner:
    """A network with its vocabulary and preprocessing, ready on a device. Made by `load`."""

    def __init__(
        self,
        network: Network,
        vocabulary: Vocabulary,
        preprocessing: Preprocessing,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.vocabulary = vocabulary
        self.preprocessing = preprocessing
        self.device = device
        self.dtype = dtype
        self._network = network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def load(
        cls, directory: str | Path, *, device: str | torch.device = "auto", dtype: str | torch.dtype = "auto"
    ) -> Captioner:
        """The captioner in `directory`, or the one of that name in `model/zoo`.

        Args:
            directory: with `model.safetensors`, `vocabulary.json` and `config.json`.
            device: "auto" takes cuda where there is one, else the CPU.
            dtype: of matrix products: "auto", "float32", "bfloat16", "float16".

        Raises CheckpointError for a directory that is no captioner, OptionError for a device or dtype there is not.
        """
        network, vocabulary, preprocessing = checkpoint.load(checkpoint.find(directory))
        chosen = choose_device(device)
        return cls(network, vocabulary, preprocessing, device=chosen, dtype=choose_dtype(dtype, chosen))

    def caption(self, images: Sequence[Image.Image | Pixels], search: Search | None = None) -> list[Caption]:
        """Captions of PIL images, or of (H, W, 3) uint8 RGB arrays of any size, in one batch."""
        if not images:
            return []
        opened = [image if isinstance(image, Image.Image) else Image.fromarray(image) for image in images]
        return self.caption_pixels(np.stack([self.preprocessing.pixels(image) for image in opened]), search)

    def caption_pixels(self, pixels: Pixels, search: Search | None = None) -> list[Caption]:
        """Captions of (B, image_size, image_size, 3) uint8 pixels that `preprocessing.pixels` gave."""
        search = search or Search()
        on_device = torch.from_numpy(pixels).to(self.device, non_blocking=True)
        seeds = torch.tensor([zlib.crc32(image.data) for image in pixels]) if search.method == "sample" else None
        with torch.inference_mode(), autocast(self.device, self.dtype):
            embeddings = self._network.encoder(self.preprocessing.normalize(on_device))
            found = search(
                self._network.decoder,
                embeddings,
                image_seeds=seeds,
                unsayable=self.vocabulary.unsayable,
                endings=self.vocabulary.bad_endings,
            )
        return [
            Caption([Candidate(self.vocabulary.decode(h.words), h.log_prob, h.num_tokens) for h in hypotheses])
            for hypotheses in found
        ]
