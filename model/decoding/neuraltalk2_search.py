"""neuraltalk2's own decoding (misc/LanguageModel.lua), for all images and beams at once.

It differs from standard beam search: END does not retire a beam, which is recorded as finished but keeps its slot and
continues; every beam is recorded at the last step; and the finished beam with the highest sum of log-probabilities
wins, whatever its length. Greedy search continues after END, too; only its text stops there. No word is suppressed, not
even UNK.

Letters: B images, K beams, D tokens, V vocabulary (END included).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from model.errors import OptionError
from model.nn.decoder_state import DecoderState, StepDecoder
from model.vocabulary import END


@dataclass(frozen=True)
class FinishedSequence:
    """A beam at the time when it was recorded as finished, or the result of greedy search."""

    tokens: list[int]
    """Word ids and END, which may occur anywhere; at most D."""
    log_probs: list[float]
    """The natural-log probability of each token."""

    @property
    def log_prob(self) -> float:
        """Sum of `log_probs`."""
        return sum(self.log_probs)

    @property
    def words(self) -> list[int]:
        """The word ids before the first END."""
        return self.tokens[: self.tokens.index(END)] if END in self.tokens else self.tokens

    @property
    def ended(self) -> bool:
        """True if END was generated."""
        return END in self.tokens


def search(decoder: StepDecoder, state: DecoderState, *, beams: int, length: int) -> list[list[FinishedSequence]]:
    """Returns the captions of each image up to END, best first and without repeats; one beam is greedy search.

    Args:
        decoder: in evaluation mode.
        state: after the images, before START.
        beams: K.
        length: D.

    Raises OptionError for more beams than ids.
    """
    if beams == 1:
        sequences = greedy_search(decoder, state, length=length)
        return [[FinishedSequence(s.tokens[: len(s.words) + 1], s.log_probs[: len(s.words) + 1])] for s in sequences]
    size = decoder.vocabulary_size
    if beams > size:
        raise OptionError(f"beam_size is {beams}; neuraltalk2's search has at most one for each of the {size} ids")
    finished = beam_search(decoder, state, beams=beams, length=length)
    return [[sequence for sequence in sequences if END not in sequence.tokens[:-1]] for sequences in finished]


def greedy_search(decoder: StepDecoder, state: DecoderState, *, length: int) -> list[FinishedSequence]:
    """Returns the most probable token at each of D steps, for each of B images."""
    device, count = state.device, len(state)
    tokens = torch.full((count, length), END, device=device)
    gains = torch.zeros(count, length, device=device)
    word = tokens[:, 0]
    for step in range(length):
        log_probs, state = decoder.step(word, state)
        gains[:, step], word = log_probs.max(dim=1)
        tokens[:, step] = word
    return [FinishedSequence(*pair) for pair in zip(tokens.tolist(), gains.tolist(), strict=True)]


def beam_search(decoder: StepDecoder, state: DecoderState, *, beams: int, length: int) -> list[list[FinishedSequence]]:
    """Returns all beams that finished within D steps, by descending log-probability, for each of B images.

    Args:
        beams: K, at most V.
    """
    device, count = state.device, len(state)
    tokens = torch.full((count, beams, length), END, device=device)
    gains = torch.zeros(count, beams, length, device=device)  # log-probability of each token
    sums = torch.zeros(count, 1, device=device)  # the K beams begin as one
    first = torch.arange(count, device=device).unsqueeze(1)  # (B, 1) the row of each image's first beam
    finished: list[list[FinishedSequence]] = [[] for _ in range(count)]

    log_probs, state = decoder.step(tokens[:, 0, 0], state)
    for step in range(length):
        size = log_probs.shape[1]
        grown = sums.unsqueeze(2) + log_probs.view(count, -1, size)  # (B, 1 or K, V)
        sums, where = grown.flatten(1).topk(beams)  # (B, K)
        parent, word = where // size, where % size
        row = first + parent
        tokens, gains = (
            values.gather(1, parent.unsqueeze(2).expand_as(values)) if step else values for values in (tokens, gains)
        )
        tokens[:, :, step], gains[:, :, step] = word, log_probs[row, word]
        ended = word == END if step < length - 1 else torch.ones_like(word, dtype=torch.bool)
        image, slot = ended.nonzero(as_tuple=True)
        columns = (values[image, slot, : step + 1].tolist() for values in (tokens, gains))
        for i, *recorded in zip(image.tolist(), *columns, strict=True):
            finished[i].append(FinishedSequence(*recorded))
        if step < length - 1:
            flat = row.flatten()
            log_probs, state = decoder.step(word.flatten(), state.select(flat))
        first = torch.arange(count, device=device).unsqueeze(1) * beams
    return [sorted(sequences, key=lambda sequence: -sequence.log_prob) for sequences in finished]
