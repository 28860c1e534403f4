"""The trainable network, CNN encoder and LSTM decoder, and the architecture description that rebuilds it.

Letters: B images, N captions per image, T words of the longest caption, V vocabulary (END included), H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from configs.errors import ConfigError
from configs.network import NetworkShape
from model.nn.decoder import Decoder
from model.nn.encoder import Encoder


@dataclass(frozen=True)
class Architecture(NetworkShape):
    """The network's shape with the vocabulary's size, as a captioner's `config.json` stores it.

    Raises ConfigError for a value out of range.
    """

    vocabulary_size: int = field(kw_only=True)
    """Number of word ids, END included."""
    dropout: float = 0.5
    """Dropout probability while training, in [0, 1); a stage of training sets its own."""
    max_tokens: int = 0
    """Maximum number of tokens in the training captions, END included, at which neuraltalk2's search ends. 0 if
    unknown."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vocabulary_size < 1:
            raise ConfigError(f"vocabulary_size is {self.vocabulary_size}; it must be at least 1")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"dropout is {self.dropout}; it must be in [0, 1)")
        if self.max_tokens < 0:
            raise ConfigError(f"max_tokens is {self.max_tokens}; it must be at least 0")

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
