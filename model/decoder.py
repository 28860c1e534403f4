"""The LSTM that speaks: it gets the image first, then START, then each word.

Letters: B captions, T words of the longest caption, V vocabulary (END included), E embedding, H hidden, L layers.
"""

from __future__ import annotations

import torch
from torch import nn

from model.speaker import State
from model.vocabulary import END


class Decoder(nn.Module):
    """An LSTM language model that is told the image before the first word.

    Args:
        vocabulary_size: V, the words and END.
        embedding_size: E, also the size of the image's embedding.
        hidden_size: H.
        layers: L.
        dropout: probability, on the embeddings and on what each layer of the LSTM gives, while training.
        max_tokens: of the captions it learnt from, END included; 0 where unknown.
    """

    state_parts = 2

    def __init__(
        self,
        vocabulary_size: int,
        embedding_size: int,
        hidden_size: int,
        *,
        layers: int = 1,
        dropout: float = 0.5,
        max_tokens: int = 0,
    ) -> None:
        super().__init__()
        self.max_tokens = max_tokens
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        nn.init.normal_(self.embedding.weight, std=0.1)  # of PyTorch's 1, a rare word's would stay noise
        between = dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(embedding_size, hidden_size, num_layers=layers, batch_first=True, dropout=between)
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
        """Image (B, E) and word ids (B, T) → logits (B, T + 2, V).

        The first, of the image alone, are nothing to say yet; training may ask them for the words to come. The last are
        for the END of the longest caption. Shorter captions may be padded with any id: what follows a word does not
        change the logits before it.
        """
        start = words.new_full((len(words), 1), END)
        spoken = self.embedding(torch.cat([start, words], dim=1))  # (B, T + 1, E)
        inputs = self.input_dropout(torch.cat([image.unsqueeze(1), spoken], dim=1))  # (B, T + 2, E)
        outputs, _ = self.lstm(inputs)
        logits: torch.Tensor = self.output(self.dropout(outputs))
        return logits

    def start(self, image: torch.Tensor) -> State:
        """The state after the image (B, E), what `step` needs for START: hidden and cell, each (L, B, H)."""
        state: State = self.lstm(image.unsqueeze(1))[1]
        return state

    def step(self, words: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """Last word ids (B,) and state → log-probabilities of the next word (B, V) in float32, and the new state."""
        hidden, cell = state
        outputs, state = self.lstm(self.embedding(words).unsqueeze(1), (hidden, cell))
        logits = self.output(self.dropout(outputs.squeeze(1)))
        return logits.log_softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32)), state
