"""The trainable network, CNN encoder and LSTM decoder, and the architecture description that rebuilds it.

Letters: B images, N captions per image, T words of the longest caption, V vocabulary (END included), H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from model.errors import OptionError
from model.nn.decoder import Decoder
from model.nn.encoder import Encoder
from model.nn.layers import Layer


@dataclass(frozen=True)
class Architecture:
    """The hyperparameters that determine the shapes of the weights and the length of captions.

    Args:
        vocabulary_size: number of words, END included.
        cnn: name of a torchvision classifier, or a list of layers (`model.nn.layers`).
        embedding_size: size of image and word embeddings.
        hidden_size: size of the LSTM's hidden state.
        layers: number of LSTM layers.
        dropout: training-time dropout probability, unless the training stage sets another.
        max_tokens: length of the longest training caption in tokens, END included; neuraltalk2's search stops there.
            0 if unknown.
        attention_heads: number of attention heads over the CNN's final feature map. 0 disables attention; the decoder
            then gets pooled features only.

    Raises OptionError for a value out of range.
    """

    vocabulary_size: int
    cnn: str | Sequence[Layer] = "mobilenet_v2"
    embedding_size: int = 512
    hidden_size: int = 512
    layers: int = 1
    dropout: float = 0.5
    max_tokens: int = 0
    attention_heads: int = 0

    def __post_init__(self) -> None:
        for name in ("vocabulary_size", "embedding_size", "hidden_size", "layers"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0.0 <= self.dropout < 1.0:
            raise OptionError(f"dropout is {self.dropout}; it must be in [0, 1)")
        for name in ("max_tokens", "attention_heads"):
            if getattr(self, name) < 0:
                raise OptionError(f"{name} is {getattr(self, name)}; it must be at least 0")

    def build(self) -> Network:
        """Builds the network with random weights."""
        encoder = Encoder(self.cnn, self.embedding_size, spatial=bool(self.attention_heads))
        decoder = Decoder(
            self.vocabulary_size,
            self.embedding_size,
            self.hidden_size,
            layers=self.layers,
            dropout=self.dropout,
            max_tokens=self.max_tokens,
            attention_heads=self.attention_heads,
        )
        return Network(encoder, decoder)


class Network(nn.Module):
    """CNN encoder and LSTM decoder: maps images and captions to logits."""

    def __init__(self, encoder: Encoder, decoder: Decoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(
        self,
        words: torch.Tensor,
        *,
        images: torch.Tensor | None = None,
        features: torch.Tensor | None = None,
        scheduled_sampling_prob: float = 0.0,
    ) -> torch.Tensor:
        """Returns logits (B × N, T + 2, V) of N captions per image, as `Decoder.forward` does.

        Args:
            words: (B × N, T) ids, the N captions of an image side by side.
            images: (B, 3, H, W); may be left out if `features` are given.
            features: precomputed features from `Encoder.features`, for a frozen CNN.
            scheduled_sampling_prob: probability with which an input word is replaced by one sampled from the model's
                own prediction (scheduled sampling, Bengio et al., 2015; for all positions in parallel, Mihaylova and
                Martins, 2019).
        """
        embedding = self.embed(images=images, features=features)
        if scheduled_sampling_prob:
            words = self._replace_by_samples(embedding, words, scheduled_sampling_prob)
        logits: torch.Tensor = self.decoder(embedding, words)
        return logits

    def _replace_by_samples(self, embedding: torch.Tensor, words: torch.Tensor, probability: float) -> torch.Tensor:
        with torch.no_grad():
            logits = self.decoder(embedding, words)[:, 1:-1]  # (B × N, T, V)
            samples = torch.multinomial(logits.float().softmax(dim=-1).flatten(0, 1), 1).view_as(words)
            return torch.where(torch.rand(words.shape, device=words.device) < probability, samples, words)

    def embed(self, *, images: torch.Tensor | None = None, features: torch.Tensor | None = None) -> torch.Tensor:
        """Returns image embeddings, as `Encoder.project` does, of images or of precomputed features."""
        if features is None:
            if images is None:
                raise TypeError("give the images or their features")
            features = self.encoder.features(images)
        return self.encoder.project(features)
