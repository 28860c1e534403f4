"""The interface between decoding algorithms and decoders: one step in, log-probabilities of the next word out.

Letters: B images, N captions being decoded, V vocabulary (END included).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch


@dataclass(frozen=True)
class DecoderState:
    """A decoder's state between two steps, for N captions of B images.

    Args:
        recurrent: tensors per caption, (…, N, …) with N second, such as an LSTM's hidden and cell states.
        memory: tensors per image, (…, B, …) with B second, such as the keys and values of attention. Selecting captions
            leaves it unchanged.
        image_index: (N,) int64, the image of each caption, in ascending order.
        captions_per_image: the number of captions of each image where all have as many; 0 where it may differ.
    """

    recurrent: tuple[torch.Tensor, ...]
    memory: tuple[torch.Tensor, ...]
    image_index: torch.Tensor
    captions_per_image: int = 0

    @classmethod
    def initial(cls, recurrent: tuple[torch.Tensor, ...], memory: tuple[torch.Tensor, ...] = ()) -> DecoderState:
        """Builds the state before the first word, with one caption per image."""
        return cls(recurrent, memory, torch.arange(recurrent[0].shape[1], device=recurrent[0].device))

    @property
    def device(self) -> torch.device:
        """The device of all tensors."""
        return self.image_index.device

    def __len__(self) -> int:
        """N, the number of captions."""
        return len(self.image_index)

    def select(self, captions: torch.Tensor) -> DecoderState:
        """Returns the state of some captions, given by index (int64, repeats allowed) or by a boolean mask (N,)."""
        recurrent = tuple(part[:, captions] for part in self.recurrent)
        return DecoderState(recurrent, self.memory, self.image_index[captions])

    def repeat_interleave(self, repeats: int) -> DecoderState:
        """Returns the state with `repeats` copies of each caption, the copies of a caption side by side."""
        return self.select(torch.arange(len(self), device=self.device).repeat_interleave(repeats))

    def repeat_images(self, images: torch.Tensor, captions_per_image: int) -> DecoderState:
        """Returns the state of some images, by index, with as many copies of the one caption of each."""
        return self._of_images(images.unsqueeze(1).expand(-1, captions_per_image), images)

    def select_images(self, images: torch.Tensor) -> DecoderState:
        """Returns the state of all captions of some images, by index, where all have `captions_per_image`."""
        count = self.captions_per_image
        return self._of_images(images.unsqueeze(1) * count + torch.arange(count, device=self.device), images)

    def reorder(self, captions: torch.Tensor) -> DecoderState:
        """Returns the state of as many captions (N,), by index, where each image keeps the number of its captions."""
        return replace(self, recurrent=tuple(part.index_select(1, captions) for part in self.recurrent))

    def _of_images(self, captions: torch.Tensor, images: torch.Tensor) -> DecoderState:
        """Returns the state of captions (B, K) of images (B,), both given by index."""
        recurrent = tuple(part.index_select(1, captions.flatten()) for part in self.recurrent)
        memory = tuple(part.index_select(1, images) for part in self.memory)
        image_index = torch.arange(captions.numel(), device=self.device) // captions.shape[1]
        return DecoderState(recurrent, memory, image_index, captions.shape[1])


class StepDecoder(Protocol):
    """An autoregressive decoder that is advanced one word at a time."""

    @property
    def vocabulary_size(self) -> int:
        """V, END included."""

    max_tokens: int
    """Length of the longest training caption in tokens, END included; 0 if unknown."""

    num_state_tensors: tuple[int, int]
    """Number of tensors in `DecoderState.recurrent` and in `DecoderState.memory`."""

    def step(self, words: torch.Tensor, state: DecoderState) -> tuple[torch.Tensor, DecoderState]:
        """Maps last word ids (N,) and state to log-probabilities of the next word (N, V) in float32 and a new state."""
