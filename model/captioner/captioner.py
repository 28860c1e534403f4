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

from configs.captioning import CompileCnn
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
        compile_cnn: CompileCnn = "never",
    ) -> None:
        super().__init__(vocabulary, device, dtype, compile_cnn=compile_cnn)
        self.preprocessing = preprocessing
        network = network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network = network
        self._features = FrozenFeatures(network.encoder, dtype=dtype)
        self._step_decoder = frozen_decoder(network.decoder, dtype=dtype)

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        compile_cnn: CompileCnn = "never",
    ) -> Captioner:
        """Loads the captioner in `directory`, or the one of that name in `model/zoo`.

        Args:
            directory: a folder with `model.safetensors`, `vocabulary.json` and `config.json`, or a name in the zoo.
            device: name of a torch device; "auto" is cuda if available, else cpu.
            dtype: precision of matrix products: "auto", "float32", "bfloat16" or "float16".
            compile_cnn: as in `BaseCaptioner`.

        Raises CheckpointError if `directory` is no captioner, OptionError for an unavailable device or dtype.
        """
        network, vocabulary, preprocessing = checkpoint.load(checkpoint.find(directory))
        chosen = choose_device(device)
        precision = choose_dtype(dtype, chosen)
        return cls(network, vocabulary, preprocessing, device=chosen, dtype=precision, compile_cnn=compile_cnn)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the network; it is frozen anew where it is unpickled."""
        made = partial(Captioner, device=self.device, dtype=self.dtype, compile_cnn=self.compilation.when)
        return made, (self._network, self.vocabulary, self.preprocessing)

    @property
    def pixel_keys(self) -> Sequence[Preprocessing]:
        """As `BaseCaptioner.pixel_keys`."""
        return [self.preprocessing.pixel_key]

    @property
    def decoder(self) -> StepDecoder:
        """As `BaseCaptioner.decoder`."""
        return self._step_decoder

    def compile(self, pixels: PixelsByKey) -> None:
        """As `BaseCaptioner.compile`."""
        self._features.compile(self._normalized(pixels))

    def _normalized(self, pixels: PixelsByKey) -> torch.Tensor:
        host = torch.from_numpy(pixels[self.preprocessing.pixel_key])
        return self.preprocessing.normalize(self._streams.copy(host) if self._streams else host.to(self.device))

    def initial_state(self, pixels: PixelsByKey) -> DecoderState:
        """As `BaseCaptioner.initial_state`."""
        embeddings = self._network.encoder.project(self._features(self._normalized(pixels)))
        state: DecoderState = self._network.decoder.initial_state(embeddings)
        return state
