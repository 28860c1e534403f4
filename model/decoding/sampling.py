"""Captions sampled word by word, for a batch of images at once, on their device.

Letters: B images, N captions being decoded, V vocabulary (END included).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from model.decoding.hypothesis import Hypothesis
from model.decoding.logits_processors import LogitsProcessor
from model.nn.decoder_state import DecoderState, StepDecoder
from model.vocabulary import END


@dataclass(frozen=True)
class Sampling:
    """Samples captions by the Gumbel-max trick and ranks them by score.

    Args:
        num_candidates: captions sampled per image.
        max_tokens: maximum number of words in a caption.
        length_penalty: captions are ranked by log_prob / num_tokens ** length_penalty.
        temperature: divides the log-probabilities; below 1 sharpens the distribution.
        top_k: samples from this many most probable words; 0 from all.
        top_p: samples from the smallest set of words with at least this total probability (nucleus sampling).
        seed: combined with each image's own seed.
    """

    num_candidates: int
    max_tokens: int
    length_penalty: float
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __call__(
        self, decoder: StepDecoder, state: DecoderState, logits_processor: LogitsProcessor, image_seeds: torch.Tensor
    ) -> list[list[Hypothesis]]:
        """Returns the captions of each image, best first.

        Args:
            state: after the images, before START.
            image_seeds: (B,) int64, a seed per image, so that an image's captions do not depend on its batch.
        """
        copies, steps, device = self.num_candidates, self.max_tokens + 1, state.device
        # Mixed twice: `_gumbel` adds the step to a seed, which must not reach the seed of the next copy.
        copy_number = torch.arange(copies, device=device)
        seeds = _mix(_mix(image_seeds + self.seed).unsqueeze(1) + copy_number).flatten()  # (B × copies,)
        rows = torch.arange(len(seeds), device=device)  # the unfinished captions
        words = torch.full((len(seeds), steps), END, device=device)
        sums = torch.zeros(len(seeds), device=device)
        state = state.repeat_interleave(copies)
        for step in range(steps):
            prefixes = words[rows]
            log_probs, state = decoder.step(prefixes[:, step - 1], state)  # at step 0, the last column is START
            logits_processor.apply(log_probs, prefixes[:, :step])
            word = (self._truncate(log_probs) + _gumbel(seeds[rows], step, log_probs.shape[1])).argmax(1)
            sums[rows] += log_probs.gather(1, word.unsqueeze(1)).squeeze(1)
            words[rows, step] = word
            unfinished = word != END
            rows, state = rows[unfinished], state.select(unfinished)
            if not len(rows):
                break
        lengths = (words == END).int().argmax(1).tolist()
        samples = [
            Hypothesis(ids[:n], total) for ids, n, total in zip(words.tolist(), lengths, sums.tolist(), strict=True)
        ]
        groups = (samples[i : i + copies] for i in range(0, len(samples), copies))
        return [sorted(group, key=lambda h: -h.score(self.length_penalty)) for group in groups]

    def _truncate(self, log_probs: torch.Tensor) -> torch.Tensor:
        """Applies temperature, top-k and top-p to log-probabilities (N, V); returns logits (N, V)."""
        logits = log_probs / self.temperature
        if self.top_k:
            least = logits.topk(min(self.top_k, logits.shape[1])).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        if self.top_p < 1.0:
            ordered, order = logits.sort(dim=1, descending=True)
            probability = ordered.softmax(1)
            beyond = probability.cumsum(1) - probability >= self.top_p  # that of the more probable words
            logits = logits.masked_fill(beyond.gather(1, order.argsort(1)), -torch.inf)
        return logits


def _gumbel(seeds: torch.Tensor, step: int, size: int) -> torch.Tensor:
    """Returns Gumbel noise (N, V) that depends only on each row's seed and the step, not on the other rows."""
    counters = _mix(seeds + step).unsqueeze(1) + torch.arange(size, device=seeds.device)
    uniform = ((_mix(counters) >> 11) & ((1 << 52) - 1)).double().add_(0.5) * 2.0**-52
    return -(-uniform.log()).log().float()


def _mix(numbers: torch.Tensor) -> torch.Tensor:
    """Hashes int64 to int64 by the finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    mixed = numbers + -0x61C8864680B583EB
    mixed = (mixed ^ ((mixed >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    mixed = (mixed ^ ((mixed >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return mixed ^ ((mixed >> 31) & 0x1FFFFFFFF)
