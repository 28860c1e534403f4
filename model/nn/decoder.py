"""The LSTM decoder: it reads the image's embedding, then START, then each word, and may attend to image regions.

Letters: B images or captions, N captions per image, T words of the longest caption, V vocabulary (END included),
E embedding, H hidden, L layers, P regions.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from model.nn.attention import Attention
from model.nn.decoder_state import DecoderState
from model.vocabulary import END


class Decoder(nn.Module):
    """An LSTM language model whose first input is the image's embedding.

    An image is a vector (E,), or (1 + P, E) for a decoder with attention: the pooled embedding, then its regions.

    Args:
        vocabulary_size: V, the words and END.
        embedding_size: E, of words and of the image.
        hidden_size: H.
        layers: L.
        dropout: training-time dropout probability on the embeddings and on the output of each LSTM layer.
        max_tokens: length of the longest training caption in tokens, END included; 0 if unknown.
        attention_heads: number of heads that attend to the regions; 0 disables attention.
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
        self.num_state_tensors = 2, 2 if attention_heads else 0
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        nn.init.normal_(self.embedding.weight, std=0.1)  # with PyTorch's std of 1, rare words would stay noise
        between = dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(embedding_size, hidden_size, num_layers=layers, batch_first=True, dropout=between)
        self.attention = Attention(embedding_size, hidden_size, attention_heads) if attention_heads else None
        self.output = nn.Linear(hidden_size, vocabulary_size)
        self.input_dropout, self.dropout = nn.Dropout(dropout), nn.Dropout(dropout)

    @property
    def vocabulary_size(self) -> int:
        """V, END included."""
        return self.output.out_features

    def set_dropout(self, probability: float, *, inputs: float) -> None:
        """Sets the dropout probability of the LSTM's outputs, and that of its inputs."""
        self.dropout.p, self.input_dropout.p = probability, inputs
        self.lstm.dropout = probability if self.lstm.num_layers > 1 else 0.0

    def forward(self, image: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """Returns logits (B × N, T + 2, V) of captions given their images, for training.

        The first position is the image's own: no word is predicted there, but an auxiliary loss may use its logits. The
        last predicts the END of the longest caption. Shorter captions may be padded with any id: later words do not
        change earlier logits.

        Args:
            image: (B, E), or (B, 1 + P, E) with attention.
            words: (B × N, T) ids, the N captions of an image side by side.
        """
        start = words.new_full((len(words), 1), END)
        embedded = self.embedding(torch.cat([start, words], dim=1))  # (B × N, T + 1, E)
        pooled = self._pooled(image).repeat_interleave(len(words) // len(image), dim=0)
        inputs = self.input_dropout(torch.cat([pooled.unsqueeze(1), embedded], dim=1))  # (B × N, T + 2, E)
        outputs = self.dropout(self.lstm(inputs)[0])
        if self.attention:
            memory = self.attention.project_memory(self.input_dropout(image[:, 1:]))
            queries = outputs.reshape(len(image), -1, outputs.shape[2])  # (B, N × (T + 2), H)
            outputs = self.dropout(self.attention(queries, *memory)).view_as(outputs)
        logits: torch.Tensor = self.output(outputs)
        return logits

    def initial_state(self, image: torch.Tensor) -> DecoderState:
        """Returns the state after the images (B, E) or (B, 1 + P, E); the next word to step with is START.

        Its `recurrent` is hidden and cell state, each (L, B, H); its `memory` is that of `Attention.project_memory`.
        """
        recurrent = self.lstm(self._pooled(image).unsqueeze(1))[1]
        return DecoderState.initial(recurrent, self.attention.project_memory(image[:, 1:]) if self.attention else ())

    def step(self, words: torch.Tensor, state: DecoderState) -> tuple[torch.Tensor, DecoderState]:
        """Maps last word ids (N,) and state to log-probabilities of the next word (N, V) in float32 and a new state."""
        outputs, recurrent = self.lstm(self.embedding(words).unsqueeze(1), state.recurrent)
        outputs = self.dropout(outputs.squeeze(1))
        if self.attention:
            outputs = self.dropout(self.attention.forward_packed(outputs, state))
        logits = self.output(outputs)
        log_probs = logits.log_softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
        return log_probs, replace(state, recurrent=recurrent)

    def _pooled(self, image: torch.Tensor) -> torch.Tensor:
        """Returns the pooled embedding (B, E)."""
        return image[:, 0] if self.attention else image
