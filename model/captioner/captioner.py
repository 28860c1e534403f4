"""A single captioner: maps images to captions.

>>> captioner = Captioner.load("flickr8k-mobilenet-v2")
>>> captioner.caption([PIL.Image.open("dog.jpg")])[0].text
'a dog runs through the grass'
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from model.captioner import checkpoint
from model.captioner.base import BaseCaptioner, Candidate, Caption
from model.decoding.reranking import PixelsByKey
from model.device import choose_device, choose_dtype
from model.nn.captioning_network import Network
from model.nn.decoder_state import DecoderState, StepDecoder
from model.nn.frozen_cnn import FrozenFeatures
from model.nn.frozen_decoder import frozen_decoder
from model.vision.preprocessing import Preprocessing
from model.vocabulary import Vocabulary

__all__ = ["Candidate", "Caption", "Captioner"]


class Captioner(BaseCaptioner):
    """A network with its vocabulary and preprocessing, on a device, in evaluation mode. Made by `load`."""

    def __init__(
        self,
        network: Network,
        vocabulary: Vocabulary,
        preprocessing: Preprocessing,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(vocabulary, device, dtype)
        self.preprocessing = preprocessing
        network = network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network = network
        self._features = FrozenFeatures(network.encoder, dtype=dtype)
        self._step_decoder = frozen_decoder(network.decoder, dtype=dtype)

    @classmethod
    def load(
        cls, directory: str | Path, *, device: str | torch.device = "auto", dtype: str | torch.dtype = "auto"
    ) -> Captioner:
        """Loads the captioner in `directory`, or the one of that name in `model/zoo`.

        Args:
            directory: a folder with `model.safetensors`, `vocabulary.json` and `config.json`, or a name in the zoo.
            device: name of a torch device; "auto" is cuda if available, else cpu.
            dtype: precision of matrix products: "auto", "float32", "bfloat16" or "float16".

        Raises CheckpointError if `directory` is no captioner, OptionError for an unavailable device or dtype.
        """
        network, vocabulary, preprocessing = checkpoint.load(checkpoint.find(directory))
        chosen = choose_device(device)
        return cls(network, vocabulary, preprocessing, device=chosen, dtype=choose_dtype(dtype, chosen))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the network; it is frozen anew where it is unpickled."""
        made = partial(Captioner, device=self.device, dtype=self.dtype)
        return made, (self._network, self.vocabulary, self.preprocessing)

    @property
    def pixel_keys(self) -> Sequence[Preprocessing]:
        """As `BaseCaptioner.pixel_keys`."""
        return [self.preprocessing.pixel_key]

    @property
    def decoder(self) -> StepDecoder:
        """As `BaseCaptioner.decoder`."""
        return self._step_decoder

    def initial_state(self, pixels: PixelsByKey) -> DecoderState:
        """As `BaseCaptioner.initial_state`."""
        host = torch.from_numpy(pixels[self.preprocessing.pixel_key])
        on_device = self._streams.copy(host) if self._streams else host.to(self.device)
        embeddings = self._network.encoder.project(self._features(self.preprocessing.normalize(on_device)))
        state: DecoderState = self._network.decoder.initial_state(embeddings)
        return state
