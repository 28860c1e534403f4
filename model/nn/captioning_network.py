"""Encoder and decoder as one trainable network, and the description that rebuilds it."""

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
    """Everything that decides the shapes of the weights, and how long captions get.

    Args:
        vocabulary_size: words and END.
        cnn: a torchvision classifier's name, or the layers of another CNN (`model.nn.layers`).
        embedding_size: of the image and of the words.
        hidden_size: of the LSTM.
        layers: of the LSTM.
        dropout: probability while training, unless the trainer sets another.
        max_tokens: of the captions it learnt from, END included, where neuraltalk2's search ends; 0 where unknown.
        attention_heads: with which the decoder looks at the CNN's last map of features; 0: it is told the pooled ones.
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
        """The network with random weights."""
        encoder = Encoder(self.cnn, self.embedding_size, places=bool(self.attention_heads))
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
    """What is trained: logits of each caption given its image."""

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
        mishear: float = 0.0,
    ) -> torch.Tensor:
        """Logits (B × N, T + 2, V) of N captions per image, as `Decoder.forward` gives them.

        Args:
            words: (B × N, T) ids, the N captions of an image side by side.
            images: (B, 3, H, W), or
            features: of the CNN, as `Encoder.features` gives them, where it is frozen and was run before.
            mishear: probability with which the decoder hears, in a word's place, one that it draws itself after the
                words before: scheduled sampling (Bengio et al., 2015), all words at once (Mihaylova and Martins, 2019).
        """
        embedding = self.embed(images=images, features=features)
        if mishear:
            words = self._misheard(embedding, words, mishear)
        logits: torch.Tensor = self.decoder(embedding, words)
        return logits

    def _misheard(self, embedding: torch.Tensor, words: torch.Tensor, probability: float) -> torch.Tensor:
        with torch.no_grad():
            logits = self.decoder(embedding, words)[:, 1:-1]  # (B × N, T, V)
            drawn = torch.multinomial(logits.float().softmax(dim=-1).flatten(0, 1), 1).view_as(words)
            return torch.where(torch.rand(words.shape, device=words.device) < probability, drawn, words)

    def embed(self, *, images: torch.Tensor | None = None, features: torch.Tensor | None = None) -> torch.Tensor:
        """Embeddings of images, or of their features, as `forward` takes them and `Encoder.project` gives them."""
        if features is None:
            if images is None:
                raise TypeError("give the images or their features")
            features = self.encoder.features(images)
        return self.encoder.project(features)
