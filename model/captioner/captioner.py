"""Images in, captions out.

>>> captioner = Captioner.load("flickr8k-mobilenet-v2")
>>> captioner.caption([PIL.Image.open("dog.jpg")])[0].text
'a dog runs through the grass'
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from model.captioner import checkpoint
from model.captioner.base import Candidate, Caption, Captioning
from model.decoding.reranking import Views
from model.device import choose_device, choose_dtype
from model.nn.captioning_network import Network
from model.nn.decoder_state import Speaker, State
from model.vision.preprocessing import Preprocessing
from model.vocabulary import Vocabulary

__all__ = ["Candidate", "Caption", "Captioner"]


class Captioner(Captioning):
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

    @property
    def views(self) -> Sequence[Preprocessing]:
        """As `Captioning.views`."""
        return [self.preprocessing.view]

    @property
    def speaker(self) -> Speaker:
        """As `Captioning.speaker`."""
        decoder: Speaker = self._network.decoder
        return decoder

    def start(self, views: Views) -> State:
        """As `Captioning.start`."""
        on_device = torch.from_numpy(views[self.preprocessing.view]).to(self.device, non_blocking=True)
        embeddings = self._network.encoder(self.preprocessing.normalize(on_device))
        state: State = self._network.decoder.start(embeddings)
        return state
