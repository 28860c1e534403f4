"""Beam search for a batch of images at once, on their device; in groups that differ, if asked to.

Only beams that are not finished cost a step of the speaker; images whose search is over leave the batch.

Letters: B images still searched, K beams, G groups of them, T words, V vocabulary (END included).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from model.decoding.hypothesis import Hypothesis
from model.decoding.logits_processors import Constraints
from model.nn.decoder_state import Speaker, State
from model.vocabulary import END


@dataclass(frozen=True)
class Beam:
    """Keeps the best K captions of each image, finished or not, word by word.

    Args:
        beams: K.
        max_tokens: words a caption may have.
        length_normalization: captions are ranked by log_prob / num_tokens ** this.
        num_candidates: captions given per image, at most K.
        groups: G, a divisor of K. Each keeps its best K / G captions, one group after the other.
        diversity: what a group's choice of a word loses, at each step, for each beam of the groups before it that chose
            the word at that step: Hamming diversity (Vijayakumar et al., 2016). It counts for the choice only.
    """

    beams: int
    max_tokens: int
    length_normalization: float
    num_candidates: int = 1
    groups: int = 1
    diversity: float = 0.0

    def __call__(self, speaker: Speaker, state: State, constraints: Constraints) -> list[list[Hypothesis]]:
        """The candidates of each image, best first; of groups, what is each one's best comes first.

        Args:
            state: after the images, before START.
        """
        device, count, k, steps = state.device, len(state), self.beams, self.max_tokens + 1
        each = k // self.groups
        images = torch.arange(count, device=device)  # (B,) the image of each row
        words = torch.full((count, k, steps), END, device=device)
        sums = torch.full((count, k), -torch.inf, device=device)  # of log-probabilities
        tokens = torch.ones(count, k, device=device)  # that `sums` sums over; none yet, and 1 divides well
        live = torch.zeros(count, k, dtype=torch.bool, device=device)
        sums[:, ::each], live[:, ::each] = 0.0, True  # the beams of a group begin as one
        if self.groups > 1:
            state = state.copies(self.groups)
        results: list[list[Hypothesis]] = [[] for _ in range(count)]

        for step in range(steps):  # `state` holds the live beams only, in the order of `live`
            said = words[live]
            log_probs, state = speaker.step(said[:, step - 1], state)  # at step 0 the last place holds START
            constraints.apply(log_probs, said[:, :step])
            size = log_probs.shape[1]
            grown = log_probs.new_full((*live.shape, size), -torch.inf)  # (B, K, V)
            grown[:, :, END] = 0.0  # what is finished stays as it is
            grown[live] = log_probs
            grown += sums.unsqueeze(2)
            tokens = torch.where(live, step + 1.0, tokens)
            scores, where = self._chosen(grown / tokens.unsqueeze(2) ** self.length_normalization, live)
            beam, word = where // size, where % size
            row = (live.flatten().cumsum(0) - 1).view_as(live).gather(1, beam)  # of `state`
            live = live.gather(1, beam) & (word != END)
            sums, tokens = grown.flatten(1).gather(1, where), tokens.gather(1, beam)
            words = words.gather(1, beam.unsqueeze(2).expand_as(words))
            words[:, :, step] = word

            over = self._over(scores, sums, live)
            for i in over.nonzero().flatten().tolist():
                results[images[i]] = self._finished(words[i], sums[i], tokens[i], live[i])
            going = ~over
            images, words, sums, tokens, live = images[going], words[going], sums[going], tokens[going], live[going]
            row = row[going][live]
            if not len(row):
                break
            state = state.rows(row)
        return results

    def _chosen(self, scores: torch.Tensor, live: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores and places, in (K × V,), of the best of each group: (B, K) of (B, K, V) and (B, K)."""
        size, each = scores.shape[2], self.beams // self.groups
        if self.groups == 1:
            best = scores.flatten(1).topk(self.beams)
            return best.values, best.indices
        said = scores.new_zeros(len(scores), size)  # how many beams of the groups before chose a word
        chosen = []
        for first in range(0, self.beams, each):
            ours, going = scores[:, first : first + each], live[:, first : first + each]
            less = torch.where(going.unsqueeze(2), self.diversity * said.unsqueeze(1), 0.0)
            where = (ours - less).flatten(1).topk(each).indices
            speaks = going.gather(1, where // size)  # a beam that was finished before says nothing
            said.scatter_add_(1, where % size, speaks.to(said.dtype))
            chosen.append(where + first * size)
        where = torch.cat(chosen, dim=1)
        return scores.flatten(1).gather(1, where), where

    def _over(self, scores: torch.Tensor, sums: torch.Tensor, live: torch.Tensor) -> torch.Tensor:
        """(B,) whether no live beam can still enter the best finished ones of its group. All arguments (B, K)."""
        shape = (len(live) * self.groups, -1)
        scores, sums, alive = scores.reshape(shape), sums.reshape(shape), live.reshape(shape)
        wanted = -(-self.num_candidates // self.groups)
        finished = scores.masked_fill(alive, -torch.inf).topk(wanted).values[:, -1]
        # Log-probabilities only fall, and no caption has more than max_tokens + 1 tokens.
        most = (self.max_tokens + 1) ** self.length_normalization
        attainable = sums.masked_fill(~alive, -torch.inf).amax(1) / most
        over: torch.Tensor = ((finished >= attainable) | ~alive.any(1)).view(len(live), self.groups).all(1)
        return over

    def _finished(
        self, words: torch.Tensor, sums: torch.Tensor, tokens: torch.Tensor, live: torch.Tensor
    ) -> list[Hypothesis]:
        """The best candidates of one image: (K, T), (K,), (K,), (K,)."""
        ready = (~live & sums.isfinite()).nonzero().flatten().tolist()
        if self.groups == 1:  # whose beams are in the order of their scores
            ready = ready[: self.num_candidates]
        found = [(i, Hypothesis(words[i, : int(tokens[i]) - 1].tolist(), float(sums[i]))) for i in ready]
        return [hypothesis for _, hypothesis in found] if self.groups == 1 else self._of_groups(found)

    def _of_groups(self, found: list[tuple[int, Hypothesis]]) -> list[Hypothesis]:
        """By rank within their group, then by score; each caption once."""
        ranked, groups = list[tuple[int, Hypothesis]](), dict[int, list[Hypothesis]]()
        for beam, hypothesis in found:
            groups.setdefault(beam // (self.beams // self.groups), []).append(hypothesis)
        for group in groups.values():
            ranked += enumerate(sorted(group, key=self._loss))
        ranked.sort(key=lambda pair: (pair[0], self._loss(pair[1])))
        distinct = dict[tuple[int, ...], Hypothesis]()
        for _, hypothesis in ranked:
            distinct.setdefault(tuple(hypothesis.words), hypothesis)
        return list(distinct.values())[: self.num_candidates]

    def _loss(self, hypothesis: Hypothesis) -> float:
        return -hypothesis.score(self.length_normalization)
