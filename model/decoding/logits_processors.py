"""Rules on the next word: they set log-probabilities to -inf, for all captions at once.

A rule never leaves a caption without a continuation: where no word remains allowed, END is.

Letters: N captions being decoded, S words of each so far, V vocabulary (END included).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from model.vocabulary import END


class LogitsProcessor:
    """Applies all rules of a search to the log-probabilities of the next word.

    Args:
        suppressed_ids: ids that are never generated.
        forbidden_final_ids: ids that may not be the last word of a caption.
        no_immediate_repeat: whether a word may not follow itself.
        no_repeat_ngram_size: n; no n-gram occurs twice in a caption; 0 disables the rule.
        min_tokens: minimum number of words before END.
        max_tokens: maximum number of words.
        device: device of the log-probabilities.
    """

    def __init__(
        self,
        *,
        suppressed_ids: Sequence[int] = (),
        forbidden_final_ids: Sequence[int] = (),
        no_immediate_repeat: bool = False,
        no_repeat_ngram_size: int = 0,
        min_tokens: int = 0,
        max_tokens: int,
        device: torch.device,
    ) -> None:
        self._suppressed = torch.tensor(list(suppressed_ids), dtype=torch.int64, device=device)
        self._forbidden_final = torch.tensor(list(forbidden_final_ids), dtype=torch.int64, device=device)
        self._no_immediate_repeat, self._no_repeat_ngram = no_immediate_repeat, no_repeat_ngram_size
        self._min_tokens, self._max_tokens = min_tokens, max_tokens
        self._may_forbid_all = bool(forbidden_final_ids or no_immediate_repeat or no_repeat_ngram_size or min_tokens)

    def apply(self, log_probs: torch.Tensor, words: torch.Tensor) -> None:
        """Sets the log-probabilities of forbidden words to -inf, in place.

        Args:
            log_probs: (N, V) of the next word.
            words: (N, S) ids of the words so far, none of them END.
        """
        end = log_probs[:, END].clone() if self._may_forbid_all else None
        log_probs.index_fill_(1, self._suppressed, -torch.inf)
        self._forbid_repeats(log_probs, words)
        self._forbid_endings(log_probs, words)
        if words.shape[1] == self._max_tokens:
            log_probs[:, END + 1 :] = -torch.inf
        if end is not None:
            none_allowed = log_probs.amax(1) == -torch.inf
            log_probs[:, END] = torch.where(none_allowed, end, log_probs[:, END])

    def _forbid_repeats(self, log_probs: torch.Tensor, words: torch.Tensor) -> None:
        steps, n = words.shape[1], self._no_repeat_ngram
        if self._no_immediate_repeat and steps:
            log_probs.scatter_(1, words[:, -1:], -torch.inf)
        if n and steps >= n:
            ngrams = words.unfold(1, n, 1)  # (N, S - n + 1, n)
            prefix = words[:, steps - n + 1 :].unsqueeze(1)  # the n - 1 words that the next one would complete
            repeated = (ngrams[:, :, :-1] == prefix).all(2)
            penalty = torch.where(repeated, -torch.inf, 0.0).to(log_probs.dtype)
            log_probs.scatter_add_(1, ngrams[:, :, -1], penalty)

    def _forbid_endings(self, log_probs: torch.Tensor, words: torch.Tensor) -> None:
        steps = words.shape[1]
        if steps < self._min_tokens:
            log_probs[:, END] = -torch.inf
        if len(self._forbidden_final):
            if steps:
                ends = (words[:, -1:] == self._forbidden_final).any(1)  # `isin` may wait for the device
                log_probs[:, END].masked_fill_(ends, -torch.inf)
            if steps == self._max_tokens - 1:  # the next word is the last one possible
                log_probs.index_fill_(1, self._forbidden_final, -torch.inf)
