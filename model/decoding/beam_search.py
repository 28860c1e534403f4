"""Batched beam search, optionally diverse (in groups of beams that differ).

Only unfinished beams cost a decoder step; images whose search is over leave the batch. On a GPU, where the host would
wait for the device at every step, `static_beam_search` takes the same steps.

Letters: B images still being searched, K beams, G groups of beams, T words, C continuations of a beam that may be
chosen, V vocabulary (END included).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from model.decoding.beams import Beams
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
        images = torch.arange(len(state), device=state.device)  # (B,) indices into `results`
        beams = self.first_beams(len(state), state)
        if self.num_beam_groups > 1:
            state = state.repeat_interleave(self.num_beam_groups)
        results: list[list[Hypothesis]] = [[] for _ in range(len(images))]

        for step in range(self.steps):  # `state` holds the live beams only, in the order of `live`
            live, prefixes = beams.live, beams.words[beams.live]
            log_probs, state = decoder.step(prefixes[:, step - 1], state)  # at step 0, the last column is START
            logits_processor.apply(log_probs, prefixes[:, :step])
            best = self.best_words(log_probs)
            next_words = torch.full((*live.shape, best.indices.shape[1]), END, device=live.device)  # (B, K, C)
            gains = log_probs.new_full(next_words.shape, -torch.inf)
            gains[:, :, 0] = 0.0  # finished captions stay as they are
            next_words[live], gains[live] = best.indices, best.values
            beams, beam = self.advance(step, beams, next_words, gains, decoder.vocabulary_size)

            columns = (values[beams.over].tolist() for values in (images, *beams[:4]))
            for image, *values in zip(*columns, strict=True):
                results[image] = self.finished(*values)
            ongoing = ~beams.over
            row = (live.flatten().cumsum(0) - 1).view_as(live).gather(1, beam)[ongoing]  # index into `state`
            images, beams = images[ongoing], beams.select(ongoing)
            row = row[beams.live]
            if not len(row):
                break
            state = state.select(row)
        return results

    @property
    def steps(self) -> int:
        """T, the largest number of tokens in a caption: `max_tokens` words, and END."""
        return self.max_tokens + 1

    def first_beams(self, images: int, state: DecoderState) -> Beams:
        """Returns the beams before the first word, on the device of the decoder's state."""
        dtype = torch.promote_types(state.recurrent[0].dtype, torch.float32)
        group_size = self.beams // self.num_beam_groups
        return Beams.first(
            images, self.beams, steps=self.steps, group_size=group_size, device=state.device, dtype=dtype
        )

    def best_words(self, log_probs: torch.Tensor) -> torch.return_types.topk:
        """Returns the C best next words of each beam, and their log-probabilities, from (N, V)."""
        return log_probs.topk(min(self._continuations, log_probs.shape[1]))

    def advance(
        self, step: int, beams: Beams, next_words: torch.Tensor, gains: torch.Tensor, vocabulary_size: int
    ) -> tuple[Beams, torch.Tensor]:
        """Returns the beams with another word each, and (B, K) the beam that each of them extends.

        Args:
            step: number of words so far.
            next_words: (B, K, C) ids of each beam's best next words; END for a finished beam.
            gains: (B, K, C) their log-probabilities; 0 and -inf for a finished beam. They are overwritten.
            vocabulary_size: V.
        """
        grown = gains.add_(beams.sums.unsqueeze(2))
        tokens = torch.where(beams.live, step + 1.0, beams.tokens)
        scores, where = self._choose(
            grown / tokens.unsqueeze(2) ** self.length_penalty, next_words, beams.live, vocabulary_size
        )
        beam, word = where // grown.shape[2], next_words.flatten(1).gather(1, where)
        live = beams.live.gather(1, beam) & (word != END)
        sums, tokens = grown.flatten(1).gather(1, where), tokens.gather(1, beam)
        words = beams.words.gather(1, beam.unsqueeze(2).expand_as(beams.words))
        words[:, :, step] = word
        return Beams(words, sums, tokens, live, self._is_over(scores, sums, live)), beam

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

    def finished(
        self, words: list[list[int]], sums: list[float], tokens: list[float], live: list[bool]
    ) -> list[Hypothesis]:
        """Returns the best finished captions of one image, from the values of its K beams (`Beams`)."""
        ready = [i for i in range(self.beams) if not live[i] and math.isfinite(sums[i])]
        if self.num_beam_groups == 1:  # beams are sorted by score
            ready = ready[: self.num_candidates]
        found = [(i, Hypothesis(words[i][: int(tokens[i]) - 1], sums[i])) for i in ready]
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
