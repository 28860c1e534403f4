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
    logits: torch.Tensor,
    wanted: torch.Tensor,
    *,
    label_smoothing: float = 0.0,
    caption_weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed negative log-likelihood in nats, and the number of tokens to divide it by.

    neuraltalk2 divides the sum over all words plus one END per caption by their number in the batch; the two are given
    apart so that workers can divide by the tokens of the *global* batch.

    Args:
        logits: (B, T + 1, V).
        wanted: (B, T + 1) ids from `targets`.
        label_smoothing: share of the probability spread over the vocabulary.
        caption_weights: (B,) of each caption's part in the sum; None weighs all alike. With advantages of captions that
            the network drew itself, the gradient is the policy gradient of their reward.
    """
    losses = cross_entropy(
        _at_least_float32(logits).flatten(0, 1),
        wanted.flatten(),
        ignore_index=PADDING,
        reduction="none",
        label_smoothing=label_smoothing,
    ).view_as(wanted)
    if caption_weights is not None:
        losses = losses * caption_weights.unsqueeze(1)
    return losses.sum(), (wanted != PADDING).sum()


def bag_of_words_loss(
    logits: torch.Tensor, words: torch.Tensor, lengths: torch.Tensor, word_weights: torch.Tensor
) -> torch.Tensor:
    """How little of each caption's words the image alone foretells: cross-entropy (B,) in nats.

    The wanted distribution of a caption gives each of its words a share of its weight.

    Args:
        logits: (B, V), the first of each caption's.
        words, lengths: (B, T) ids, (B,).
        word_weights: (V,), 0 for what is not to be foretold.
    """
    inside = torch.arange(words.shape[1], device=words.device) < lengths.unsqueeze(1)
    bag = torch.zeros_like(logits, dtype=word_weights.dtype).scatter_add_(1, words, word_weights[words] * inside)
    bag = bag / bag.sum(dim=1, keepdim=True).clamp(min=torch.finfo(bag.dtype).tiny)
    return -(bag * _at_least_float32(logits).log_softmax(dim=1)).sum(dim=1)


def _at_least_float32(logits: torch.Tensor) -> torch.Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
