"""Captions drawn at random, word by word, for a batch of images at once, on their device.

Letters: B images, N captions still being spoken, V vocabulary (END included).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from model.decoding.hypothesis import Hypothesis
from model.decoding.logits_processors import Constraints
from model.nn.decoder_state import Speaker, State
from model.vocabulary import END


@dataclass(frozen=True)
class Sampling:
    """Draws captions by the Gumbel-max trick; ranks them by score.

    Args:
        num_candidates: captions drawn per image.
        max_tokens: words a caption may have.
        length_normalization: captions are ranked by log_prob / num_tokens ** this.
        temperature: below 1 sharpens.
        top_k: from the most probable words only, this many; 0 from all.
        top_p: from the smallest set of words that has this probability together.
        seed: changes what each image's own seed gives.
    """

    num_candidates: int
    max_tokens: int
    length_normalization: float
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __call__(
        self, speaker: Speaker, state: State, constraints: Constraints, image_seeds: torch.Tensor
    ) -> list[list[Hypothesis]]:
        """The captions of each image, best first.

        Args:
            state: after the images, before START.
            image_seeds: (B,) int64, a number that belongs to each image.
        """
        each, steps, device = self.num_candidates, self.max_tokens + 1, state.device
        copies = torch.arange(each, device=device)
        # Mixed once more, for `_gumbel` counts steps on from a seed: it must not run into the next copy's.
        seeds = _mixed(_mixed(image_seeds + self.seed).unsqueeze(1) + copies).flatten()  # (B × each,)
        rows = torch.arange(len(seeds), device=device)  # the captions still being spoken
        words = torch.full((len(seeds), steps), END, device=device)
        sums = torch.zeros(len(seeds), device=device)
        state = state.copies(each)
        for step in range(steps):
            said = words[rows]
            log_probs, state = speaker.step(said[:, step - 1], state)
            constraints.apply(log_probs, said[:, :step])
            word = (self._truncated(log_probs) + _gumbel(seeds[rows], step, log_probs.shape[1])).argmax(1)
            sums[rows] += log_probs.gather(1, word.unsqueeze(1)).squeeze(1)
            words[rows, step] = word
            going = word != END
            rows, state = rows[going], state.rows(going)
            if not len(rows):
                break
        lengths = (words == END).int().argmax(1).tolist()
        drawn = [
            Hypothesis(ids[:n], total) for ids, n, total in zip(words.tolist(), lengths, sums.tolist(), strict=True)
        ]
        groups = (drawn[i : i + each] for i in range(0, len(drawn), each))
        return [sorted(group, key=lambda h: -h.score(self.length_normalization)) for group in groups]

    def _truncated(self, log_probs: torch.Tensor) -> torch.Tensor:
        """Logits (N, V) to sample from: temperature, then the `top_k` and `top_p` most probable words only."""
        logits = log_probs / self.temperature
        if self.top_k:
            least = logits.topk(min(self.top_k, logits.shape[1])).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        if self.top_p < 1.0:
            ordered, order = logits.sort(dim=1, descending=True)
            probability = ordered.softmax(1)
            beyond = probability.cumsum(1) - probability >= self.top_p  # of the words before it
            logits = logits.masked_fill(beyond.gather(1, order.argsort(1)), -torch.inf)
        return logits


def _gumbel(seeds: torch.Tensor, step: int, size: int) -> torch.Tensor:
    """Gumbel noise (N, V) that depends on each row's seed and the step alone, not on the row's neighbours."""
    counters = _mixed(seeds + step).unsqueeze(1) + torch.arange(size, device=seeds.device)
    uniform = ((_mixed(counters) >> 11) & ((1 << 52) - 1)).double().add_(0.5) * 2.0**-52
    return -(-uniform.log()).log().float()


def _mixed(numbers: torch.Tensor) -> torch.Tensor:
    """int64 → int64, well scrambled: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    mixed = numbers + -0x61C8864680B583EB
    mixed = (mixed ^ ((mixed >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    mixed = (mixed ^ ((mixed >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return mixed ^ ((mixed >> 31) & 0x1FFFFFFFF)
