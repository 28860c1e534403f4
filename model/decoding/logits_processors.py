"""What may not be said next: words taken out of the log-probabilities, for all captions at once.

A rule never leaves a caption without a way on: where no word is left, END may be said.

Letters: N captions that are being spoken, S words of each so far, V vocabulary (END included).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from model.vocabulary import END


class Constraints:
    """The rules of a search.

    Args:
        unsayable: ids that no caption may have.
        endings: ids that no caption may end in.
        no_immediate_repeat: no word twice in a row.
        no_repeat_ngram: n; no n words in a row come twice in a caption; 0 for no such rule.
        min_tokens: words before END, at least.
        max_tokens: words, at most.
        device: of the log-probabilities.
    """

    def __init__(
        self,
        *,
        unsayable: Sequence[int] = (),
        endings: Sequence[int] = (),
        no_immediate_repeat: bool = False,
        no_repeat_ngram: int = 0,
        min_tokens: int = 0,
        max_tokens: int,
        device: torch.device,
    ) -> None:
        self._unsayable = torch.tensor(list(unsayable), dtype=torch.int64, device=device)
        self._endings = torch.tensor(list(endings), dtype=torch.int64, device=device)
        self._no_immediate_repeat, self._no_repeat_ngram = no_immediate_repeat, no_repeat_ngram
        self._min_tokens, self._max_tokens = min_tokens, max_tokens
        self._may_leave_nothing = bool(endings or no_immediate_repeat or no_repeat_ngram or min_tokens)

    def apply(self, log_probs: torch.Tensor, said: torch.Tensor) -> None:
        """Takes the probability of words away, in place.

        Args:
            log_probs: (N, V) of the next word.
            said: (N, S) ids of the words so far, none of them END.
        """
        end = log_probs[:, END].clone() if self._may_leave_nothing else None
        log_probs.index_fill_(1, self._unsayable, -torch.inf)
        self._against_repeats(log_probs, said)
        self._against_ends(log_probs, said)
        if said.shape[1] == self._max_tokens:
            log_probs[:, END + 1 :] = -torch.inf
        if end is not None:
            nothing_left = log_probs.amax(1) == -torch.inf
            log_probs[:, END] = torch.where(nothing_left, end, log_probs[:, END])

    def _against_repeats(self, log_probs: torch.Tensor, said: torch.Tensor) -> None:
        steps, n = said.shape[1], self._no_repeat_ngram
        if self._no_immediate_repeat and steps:
            log_probs.scatter_(1, said[:, -1:], -torch.inf)
        if n and steps >= n:
            ngrams = said.unfold(1, n, 1)  # (N, S - n + 1, n)
            begun = said[:, steps - n + 1 :].unsqueeze(1)  # the n - 1 words that the next would complete
            again = (ngrams[:, :, :-1] == begun).all(2)
            taken = torch.where(again, -torch.inf, 0.0).to(log_probs.dtype)
            log_probs.scatter_add_(1, ngrams[:, :, -1], taken)

    def _against_ends(self, log_probs: torch.Tensor, said: torch.Tensor) -> None:
        steps = said.shape[1]
        if steps < self._min_tokens:
            log_probs[:, END] = -torch.inf
        if len(self._endings):
            if steps:
                log_probs[:, END].masked_fill_(torch.isin(said[:, -1], self._endings), -torch.inf)
            if steps == self._max_tokens - 1:  # the last word there can be
                log_probs.index_fill_(1, self._endings, -torch.inf)
