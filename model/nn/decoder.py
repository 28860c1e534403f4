"""The LSTM that speaks: it gets the image first, then START, then each word. It may look at the image's places, too.

Letters: B captions, N captions of an image, T words of the longest caption, V vocabulary (END included), E embedding,
H hidden, L layers, P places.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from model.nn.attention import Attention
from model.nn.decoder_state import State
from model.vocabulary import END


class Decoder(nn.Module):
    """An LSTM language model that is told the image before the first word.

    An image is a vector (E,) or, for a decoder with attention, (1 + P, E): the whole, then its places.

    Args:
        vocabulary_size: V, the words and END.
        embedding_size: E, also the size of the image's embedding.
        hidden_size: H.
        layers: L.
        dropout: probability, on the embeddings and on what each layer of the LSTM gives, while training.
        max_tokens: of the captions it learnt from, END included; 0 where unknown.
        attention_heads: with which each word's output looks at the places; 0 for a decoder that does not look.
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding_size: int,
        hidden_size: int,
        *,
        layers: int = 1,
        dropout: float = 0.5,
        max_tokens: int = 0,
        attention_heads: int = 0,
    ) -> None:
        super().__init__()
        self.max_tokens = max_tokens
        self.state_parts = 2, 2 if attention_heads else 0
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        nn.init.normal_(self.embedding.weight, std=0.1)  # of PyTorch's 1, a rare word's would stay noise
        between = dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(embedding_size, hidden_size, num_layers=layers, batch_first=True, dropout=between)
        self.attention = Attention(embedding_size, hidden_size, attention_heads) if attention_heads else None
        self.output = nn.Linear(hidden_size, vocabulary_size)
        self.input_dropout, self.dropout = nn.Dropout(dropout), nn.Dropout(dropout)

    @property
    def vocabulary_size(self) -> int:
        """V."""
        return self.output.out_features

    def set_dropout(self, probability: float, *, inputs: float) -> None:
        """Changes the probabilities with which training drops values, of the LSTM and of its inputs."""
        self.dropout.p, self.input_dropout.p = probability, inputs
        self.lstm.dropout = probability if self.lstm.num_layers > 1 else 0.0

    def forward(self, image: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """Images and word ids (B, T) of N captions of each, side by side → logits (B, T + 2, V).

        The first, of the image alone, are nothing to say yet; training may ask them for the words to come. The last are
        for the END of the longest caption. Shorter captions may be padded with any id: what follows a word does not
        change the logits before it.
        """
        start = words.new_full((len(words), 1), END)
        spoken = self.embedding(torch.cat([start, words], dim=1))  # (B, T + 1, E)
        whole = self._whole(image).repeat_interleave(len(words) // len(image), dim=0)
        inputs = self.input_dropout(torch.cat([whole.unsqueeze(1), spoken], dim=1))  # (B, T + 2, E)
        outputs = self.dropout(self.lstm(inputs)[0])
        if self.attention:
            seen = self.attention.remember(self.input_dropout(image[:, 1:]))
            together = outputs.reshape(len(image), -1, outputs.shape[2])  # of an image's captions
            outputs = self.dropout(self.attention(together, *seen)).view_as(outputs)
        logits: torch.Tensor = self.output(outputs)
        return logits

    def start(self, image: torch.Tensor) -> State:
        """The state after the images, what `step` needs for START.

        Said: hidden and cell, each (L, B, H). Seen, with attention: what `Attention.remember` gives.
        """
        said = self.lstm(self._whole(image).unsqueeze(1))[1]
        return State.after_the_images(said, self.attention.remember(image[:, 1:]) if self.attention else ())

    def step(self, words: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """Last word ids (B,) and state → log-probabilities of the next word (B, V) in float32, and the new state."""
        outputs, said = self.lstm(self.embedding(words).unsqueeze(1), state.said)
        outputs = self.dropout(outputs.squeeze(1))
        if self.attention:
            outputs = self.dropout(self.attention.of_images(outputs, state.image, *state.seen))
        logits = self.output(outputs)
        log_probs = logits.log_softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
        return log_probs, replace(state, said=said)

    def _whole(self, image: torch.Tensor) -> torch.Tensor:
        """(B, E)."""
        return image[:, 0] if self.attention else image
