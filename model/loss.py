"""The language-model criterion."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from model.vocabulary import END

PADDING = -1


def targets(words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """What the decoder should say: word ids (B, T) of captions with `lengths` (B,) → (B, T + 1).

    Each caption's words, then one END, then PADDING, which is not counted.
    """
    shifted = torch.cat([words, words.new_full((len(words), 1), END)], dim=1)
    position = torch.arange(shifted.shape[1], device=words.device)
    shifted = shifted.masked_fill(position == lengths.unsqueeze(1), END)
    return shifted.masked_fill(position > lengths.unsqueeze(1), PADDING)


def caption_loss(
    logits: torch.Tensor, wanted: torch.Tensor, *, label_smoothing: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed negative log-likelihood in nats, and the number of tokens to divide it by.

    neuraltalk2 divides the sum over all words plus one END per caption by their number in the batch; the two are given
    apart so that workers can divide by the tokens of the *global* batch.

    Args:
        logits: (B, T + 1, V).
        wanted: (B, T + 1) ids from `targets`.
        label_smoothing: share of the probability spread over the vocabulary.
    """
    total = cross_entropy(
        logits.flatten(0, 1).float() if logits.dtype in (torch.float16, torch.bfloat16) else logits.flatten(0, 1),
        wanted.flatten(),
        ignore_index=PADDING,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    return total, (wanted != PADDING).sum()
