"""What a search asks of whoever speaks: a decoder, or several that choose each word together.

Letters: B images, N captions that are being spoken, V vocabulary (END included).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True)
class State:
    """What is remembered of the images, and of the words so far.

    Args:
        said: of each caption: (…, N, …), the second dimension.
        seen: of each image: (…, B, …), the second dimension. It stays as it is while captions come and go.
        image: (N,) int64, which image a caption is of; the captions of an image lie side by side.
    """

    said: tuple[torch.Tensor, ...]
    seen: tuple[torch.Tensor, ...]
    image: torch.Tensor

    @classmethod
    def after_the_images(cls, said: tuple[torch.Tensor, ...], seen: tuple[torch.Tensor, ...] = ()) -> State:
        """One caption of each image, without words."""
        return cls(said, seen, torch.arange(said[0].shape[1], device=said[0].device))

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.image.device

    def __len__(self) -> int:
        """N."""
        return len(self.image)

    def rows(self, rows: torch.Tensor) -> State:
        """That of some captions: by their numbers (int64), as often as they are named, or by a mask (N,)."""
        return State(tuple(part[:, rows] for part in self.said), self.seen, self.image[rows])

    def copies(self, each: int) -> State:
        """That of each caption so many times, side by side."""
        return self.rows(torch.arange(len(self), device=self.device).repeat_interleave(each))


class Speaker(Protocol):
    """Says how probable each next word is."""

    @property
    def vocabulary_size(self) -> int:
        """V."""

    max_tokens: int
    """Of the captions it learnt from, END included; 0 where unknown."""

    state_parts: tuple[int, int]
    """Tensors of its state: said, seen."""

    def step(self, words: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """Last word ids (N,) and state → log-probabilities of the next word (N, V) in float32, and the new state."""
