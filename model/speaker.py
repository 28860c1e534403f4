"""What a search asks of whoever speaks: a decoder, or several that choose each word together.

Letters: N captions that are being spoken, V vocabulary (END included).
"""

from __future__ import annotations

from typing import Protocol

import torch

State = tuple[torch.Tensor, ...]
"""What is remembered of the image and the words so far; the second dimension of each tensor is that of the captions."""


class Speaker(Protocol):
    """Says how probable each next word is."""

    @property
    def vocabulary_size(self) -> int:
        """V."""

    max_tokens: int
    """Of the captions it learnt from, END included; 0 where unknown."""

    state_parts: int
    """Tensors of its state."""

    def step(self, words: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """Last word ids (N,) and state → log-probabilities of the next word (N, V) in float32, and the new state."""


def rows_of(state: State, rows: torch.Tensor) -> State:
    """The state of some captions: by their numbers (int64), in this order and as often, or by a mask (N,)."""
    return tuple(part[:, rows] for part in state)
