"""Batched beam search, optionally diverse (in groups of beams that differ).

Only unfinished beams cost a decoder step; images whose search is over leave the batch.

Letters: B images still being searched, K beams, G groups of beams, T words, C continuations of a beam that may be
chosen, V vocabulary (END included).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from model.decoding.hypothesis import Hypothesis
from model.decoding.logits_processors import LogitsProcessor
from model.nn.decoder_state import DecoderState, StepDecoder
from model.vocabulary import END


@dataclass(frozen=True)
class BeamSearch:
    """Keeps the K best captions of each image, finished or not, word by word.

    Args:
        beams: K.
        max_tokens: maximum number of words in a caption.
        length_penalty: captions are ranked by log_prob / num_tokens ** length_penalty.
        num_candidates: captions returned per image, at most K.
        num_beam_groups: G, a divisor of K. Each group keeps its K / G best captions; groups are advanced one by one.
        diversity_penalty: subtracted from the score of a word, per step, for each beam of earlier groups that chose it
            at that step (Hamming diversity, Vijayakumar et al., 2016). It affects the choice only, not the scores.
    """

    beams: int
    max_tokens: int
    length_penalty: float
    num_candidates: int = 1
    num_beam_groups: int = 1
    diversity_penalty: float = 0.0

    def __call__(
        self, decoder: StepDecoder, state: DecoderState, logits_processor: LogitsProcessor
    ) -> list[list[Hypothesis]]:
        """Returns the candidates of each image, best first; with groups, first the best of each group.

        Args:
            state: after the images, before START.
        """
        device, count, k, steps = state.device, len(state), self.beams, self.max_tokens + 1
        group_size = k // self.num_beam_groups
        images = torch.arange(count, device=device)  # (B,) indices into `results`
        words = torch.full((count, k, steps), END, device=device)
        sums = torch.full((count, k), -torch.inf, device=device)  # of log-probabilities
        tokens = torch.ones(count, k, device=device)  # tokens in each sum; 1 rather than 0 to divide by
        live = torch.zeros(count, k, dtype=torch.bool, device=device)
        sums[:, ::group_size], live[:, ::group_size] = 0.0, True  # the beams of a group begin as one
        if self.num_beam_groups > 1:
            state = state.repeat_interleave(self.num_beam_groups)
        results: list[list[Hypothesis]] = [[] for _ in range(count)]

        for step in range(steps):  # `state` holds the live beams only, in the order of `live`
            prefixes = words[live]
            log_probs, state = decoder.step(prefixes[:, step - 1], state)  # at step 0, the last column is START
            logits_processor.apply(log_probs, prefixes[:, :step])
            best = log_probs.topk(min(self._continuations, log_probs.shape[1]))
            next_words = torch.full((*live.shape, best.indices.shape[1]), END, device=device)  # (B, K, C)
            grown = log_probs.new_full(next_words.shape, -torch.inf)
            grown[:, :, 0] = 0.0  # finished captions stay as they are
            next_words[live], grown[live] = best.indices, best.values
            grown += sums.unsqueeze(2)
            tokens = torch.where(live, step + 1.0, tokens)
            scores, where = self._choose(
                grown / tokens.unsqueeze(2) ** self.length_penalty, next_words, live, decoder.vocabulary_size
            )
            beam, word = where // grown.shape[2], next_words.flatten(1).gather(1, where)
            row = (live.flatten().cumsum(0) - 1).view_as(live).gather(1, beam)  # index into `state`
            live = live.gather(1, beam) & (word != END)
            sums, tokens = grown.flatten(1).gather(1, where), tokens.gather(1, beam)
            words = words.gather(1, beam.unsqueeze(2).expand_as(words))
            words[:, :, step] = word

            over = self._is_over(scores, sums, live)
            for i in over.nonzero().flatten().tolist():
                results[images[i]] = self._finished(words[i], sums[i], tokens[i], live[i])
            ongoing = ~over
            images, words, sums = images[ongoing], words[ongoing], sums[ongoing]
            tokens, live = tokens[ongoing], live[ongoing]
            row = row[ongoing][live]
            if not len(row):
                break
            state = state.select(row)
        return results

    @property
    def _continuations(self) -> int:
        """Returns C: a group chooses K / G continuations, and at most K are penalised for what other groups chose."""
        return self.beams // self.num_beam_groups + (self.beams if self.num_beam_groups > 1 else 0)

    def _choose(
        self, scores: torch.Tensor, next_words: torch.Tensor, live: torch.Tensor, vocabulary_size: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns scores (B, K) of the best continuations of each group, and their indices (B, K) into (K × C,).

        Args:
            scores: (B, K, C) of each beam with each of its best next words.
            next_words: (B, K, C) their ids; END for a finished beam.
            live: (B, K) whether a beam is unfinished.
            vocabulary_size: V.
        """
        width, group_size = scores.shape[2], self.beams // self.num_beam_groups
        if self.num_beam_groups == 1:
            best = scores.flatten(1).topk(self.beams)
            return best.values, best.indices
        counts = scores.new_zeros(len(scores), vocabulary_size)  # beams of earlier groups that chose a word
        chosen = []
        for first in range(0, self.beams, group_size):
            group = slice(first, first + group_size)
            given = counts.gather(1, next_words[:, group].flatten(1)).view(len(scores), group_size, width)
            penalty = torch.where(live[:, group].unsqueeze(2), self.diversity_penalty * given, 0.0)
            where = (scores[:, group] - penalty).flatten(1).topk(group_size).indices
            extended = live[:, group].gather(1, where // width)  # a finished beam chooses no word
            counts.scatter_add_(1, next_words[:, group].flatten(1).gather(1, where), extended.to(counts.dtype))
            chosen.append(where + first * width)
        where = torch.cat(chosen, dim=1)
        return scores.flatten(1).gather(1, where), where

    def _is_over(self, scores: torch.Tensor, sums: torch.Tensor, live: torch.Tensor) -> torch.Tensor:
        """Returns (B,) bool: no live beam can still displace the best finished ones of its group. Takes (B, K) each."""
        shape = (len(live) * self.num_beam_groups, -1)
        scores, sums, alive = scores.reshape(shape), sums.reshape(shape), live.reshape(shape)
        wanted = -(-self.num_candidates // self.num_beam_groups)
        finished = scores.masked_fill(alive, -torch.inf).topk(wanted).values[:, -1]
        # Log-probabilities only fall, and no caption has more than max_tokens + 1 tokens.
        most = (self.max_tokens + 1) ** self.length_penalty
        attainable = sums.masked_fill(~alive, -torch.inf).amax(1) / most
        over: torch.Tensor = (finished >= attainable) | ~alive.any(1)
        return over.view(len(live), self.num_beam_groups).all(1)

    def _finished(
        self, words: torch.Tensor, sums: torch.Tensor, tokens: torch.Tensor, live: torch.Tensor
    ) -> list[Hypothesis]:
        """Returns the best finished captions of one image, from (K, T), (K,), (K,) and (K,)."""
        ready = (~live & sums.isfinite()).nonzero().flatten().tolist()
        if self.num_beam_groups == 1:  # beams are sorted by score
            ready = ready[: self.num_candidates]
        found = [(i, Hypothesis(words[i, : int(tokens[i]) - 1].tolist(), float(sums[i]))) for i in ready]
        if self.num_beam_groups == 1:
            return [hypothesis for _, hypothesis in found]
        return self._merge_groups(found)

    def _merge_groups(self, found: list[tuple[int, Hypothesis]]) -> list[Hypothesis]:
        """Sorts (beam, hypothesis) pairs by rank within their group, then by score; drops repeated captions."""
        ranked, groups = list[tuple[int, Hypothesis]](), dict[int, list[Hypothesis]]()
        for beam, hypothesis in found:
            groups.setdefault(beam // (self.beams // self.num_beam_groups), []).append(hypothesis)
        for group in groups.values():
            ranked += enumerate(sorted(group, key=self._negative_score))
        ranked.sort(key=lambda pair: (pair[0], self._negative_score(pair[1])))
        distinct = dict[tuple[int, ...], Hypothesis]()
        for _, hypothesis in ranked:
            distinct.setdefault(tuple(hypothesis.words), hypothesis)
        return list(distinct.values())[: self.num_candidates]

    def _negative_score(self, hypothesis: Hypothesis) -> float:
        return -hypothesis.score(self.length_penalty)
