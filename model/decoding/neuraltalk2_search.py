"""neuraltalk2's own search (misc/LanguageModel.lua), for all images and beams at once.

As it was: END does not retire a beam, which is noted as finished but keeps its place and goes on; every beam is noted
at the last step; the finished beam with the greatest sum of log-probabilities wins, however short it is. Greedy goes on
after END, too; only its text ends there. Any word may be said, UNK as well.

Letters: B images, K beams, D tokens, V vocabulary (END included).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from model.errors import OptionError
from model.nn.decoder_state import Speaker, State
from model.vocabulary import END


@dataclass(frozen=True)
class Spoken:
    """What a beam had said when it was noted as finished."""

    tokens: list[int]
    """Word ids and END, which may stand anywhere; at most D."""
    log_probs: list[float]
    """The natural-log probability of each token."""

    @property
    def log_prob(self) -> float:
        """Their sum."""
        return sum(self.log_probs)

    @property
    def words(self) -> list[int]:
        """What is before the first END."""
        return self.tokens[: self.tokens.index(END)] if END in self.tokens else self.tokens

    @property
    def ended(self) -> bool:
        """Whether END was said."""
        return END in self.tokens


def captions(speaker: Speaker, state: State, *, beams: int, length: int) -> list[list[Spoken]]:
    """What each image's beams, or greedy where there is one, said up to END; each caption once, the best first.

    Args:
        speaker: in evaluation mode.
        state: after the images.
        beams: K.
        length: D.

    Raises OptionError for more beams than ids.
    """
    if beams == 1:
        spoken = greedy(speaker, state, length=length)
        return [[Spoken(s.tokens[: len(s.words) + 1], s.log_probs[: len(s.words) + 1])] for s in spoken]
    size = speaker.vocabulary_size
    if beams > size:
        raise OptionError(f"beam_size is {beams}; neuraltalk2's search has at most one for each of the {size} ids")
    finished = beam(speaker, state, beams=beams, length=length)
    return [[spoken for spoken in found if END not in spoken.tokens[:-1]] for found in finished]


def greedy(speaker: Speaker, state: State, *, length: int) -> list[Spoken]:
    """The most probable token at each of D steps; of B images."""
    device, count = state.device, len(state)
    said = torch.full((count, length), END, device=device)
    gains = torch.zeros(count, length, device=device)
    word = said[:, 0]
    for step in range(length):
        log_probs, state = speaker.step(word, state)
        gains[:, step], word = log_probs.max(dim=1)
        said[:, step] = word
    return [Spoken(*pair) for pair in zip(said.tolist(), gains.tolist(), strict=True)]


def beam(speaker: Speaker, state: State, *, beams: int, length: int) -> list[list[Spoken]]:
    """All beams that finished within D steps, the greatest sum first; of B images.

    Args:
        beams: K, at most V.
    """
    device, count = state.device, len(state)
    said = torch.full((count, beams, length), END, device=device)
    gains = torch.zeros(count, beams, length, device=device)  # log-probability of each token
    sums = torch.zeros(count, 1, device=device)  # the K beams begin as one
    first = torch.arange(count, device=device).unsqueeze(1)  # (B, 1) the row of each image's first beam
    finished: list[list[Spoken]] = [[] for _ in range(count)]

    log_probs, state = speaker.step(said[:, 0, 0], state)
    for step in range(length):
        size = log_probs.shape[1]
        grown = sums.unsqueeze(2) + log_probs.view(count, -1, size)  # (B, 1 or K, V)
        sums, where = grown.flatten(1).topk(beams)  # (B, K)
        parent, word = where // size, where % size
        row = first + parent
        said, gains = (
            values.gather(1, parent.unsqueeze(2).expand_as(values)) if step else values for values in (said, gains)
        )
        said[:, :, step], gains[:, :, step] = word, log_probs[row, word]
        ended = word == END if step < length - 1 else torch.ones_like(word, dtype=torch.bool)
        image, place = ended.nonzero(as_tuple=True)
        noted = (values[image, place, : step + 1].tolist() for values in (said, gains))
        for i, tokens, each in zip(image.tolist(), *noted, strict=True):
            finished[i].append(Spoken(tokens, each))
        if step < length - 1:
            flat = row.flatten()
            log_probs, state = speaker.step(word.flatten(), state.rows(flat))
        first = torch.arange(count, device=device).unsqueeze(1) * beams
    return [sorted(found, key=lambda spoken: -spoken.log_prob) for found in finished]
