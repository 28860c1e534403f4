"""The beams of a batch of images, as tensors.

Letters: B images, K beams, T steps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from model.vocabulary import END


class Beams(NamedTuple):
    """The captions that beam search keeps for B images, K for each."""

    words: torch.Tensor
    """(B, K, T) int64 word ids; END from the end of a caption on."""
    sums: torch.Tensor
    """(B, K) sums of the natural-log probabilities of the words and of END; -inf for a beam without a caption."""
    tokens: torch.Tensor
    """(B, K) numbers of tokens in each sum, as floats, at least 1, to divide by."""
    live: torch.Tensor
    """(B, K) bool: whether a caption is unfinished."""
    over: torch.Tensor
    """(B,) bool: whether the search for an image is over."""

    @classmethod
    def first(
        cls, images: int, beams: int, *, steps: int, group_size: int, device: torch.device, dtype: torch.dtype
    ) -> Beams:
        """Builds the beams before the first word; those of a group begin as one.

        Args:
            dtype: that of the sums.
        """
        shape = images, beams
        live = torch.zeros(shape, dtype=torch.bool, device=device)
        live[:, ::group_size] = True
        sums = torch.zeros(shape, device=device, dtype=dtype).masked_fill_(~live, -torch.inf)
        words = torch.full((*shape, steps), END, device=device)
        tokens = torch.ones(shape, device=device, dtype=dtype)
        return cls(words, sums, tokens, live, torch.zeros(images, dtype=torch.bool, device=device))

    def select(self, images: torch.Tensor) -> Beams:
        """Returns the beams of some images, given by index or by a boolean mask (B,)."""
        return Beams(*(values[images] for values in self))
