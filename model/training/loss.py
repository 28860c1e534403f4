"""Losses: token cross-entropy, and an auxiliary bag-of-words loss.

Letters: B captions, T words of the longest caption, V vocabulary (END included).
"""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from model.vocabulary import END

PADDING = -1


def targets(words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Maps word ids (B, T) of captions with `lengths` (B,) to the decoder's targets (B, T + 1).

    A row holds the words of a caption, then one END, then PADDING, which losses ignore.
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
    """Returns the summed negative log-likelihood in nats, and the number of tokens, each as a scalar tensor.

    The mean is left to the caller, so that workers can divide by the number of tokens in the *global* batch. As in
    neuraltalk2, the tokens are all words plus one END per caption.

    Args:
        logits: (B, T + 1, V).
        wanted: (B, T + 1) ids from `targets`.
        label_smoothing: share of the target probability spread evenly over the vocabulary, in [0, 1).
        caption_weights: (B,) factor of each caption's loss; None is 1 for all. With the advantages of sampled captions,
            the gradient is the policy gradient of their reward (REINFORCE).
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
    """Returns the cross-entropy (B,) in nats of predicting each caption's words, in any order, from the image alone.

    The target distribution of a caption is proportional to the weights of its words.

    Args:
        logits: (B, V), those of the image's own position.
        words: (B, T) ids.
        lengths: (B,).
        word_weights: (V,), 0 for words to ignore.
    """
    inside = torch.arange(words.shape[1], device=words.device) < lengths.unsqueeze(1)
    bag = torch.zeros_like(logits, dtype=word_weights.dtype).scatter_add_(1, words, word_weights[words] * inside)
    bag = bag / bag.sum(dim=1, keepdim=True).clamp(min=torch.finfo(bag.dtype).tiny)
    return -(bag * _at_least_float32(logits).log_softmax(dim=1)).sum(dim=1)


def _at_least_float32(logits: torch.Tensor) -> torch.Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
