"""Options of the search for captions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from configs.errors import ConfigError

Method = Literal["beam", "greedy", "sample", "neuraltalk2"]


@dataclass(frozen=True)
class Search:
    """The search for captions: the algorithm, its limits and the rules that each caption follows.

    Raises ConfigError for a value out of range.
    """

    method: Method = "beam"
    """The search algorithm: beam search, greedy search, random sampling, or neuraltalk2's original beam search,
    which with beam_size 1 is its greedy search (docs/neuraltalk2.md)."""
    beam_size: int = 5
    """Number of beams, the partial captions kept at each step. Used by the methods beam and neuraltalk2."""
    max_tokens: int = 20
    """Maximum number of words in a caption."""
    length_penalty: float = 0.7
    """Exponent of the length in the score log_prob / num_tokens ** length_penalty, by which captions are ranked.
    0 ranks by log_prob alone."""
    num_candidates: int = 1
    """Number of captions per image in the column `candidates`, best first. At most beam_size with beam search, 1 with
    greedy search."""
    temperature: float = 1.0
    """Sampling temperature, above 0. Values below 1 favour probable words."""
    top_k: int = 0
    """Sampling draws from the top_k most probable words. 0 draws from all words."""
    top_p: float = 1.0
    """Sampling draws from the smallest set of words whose probabilities add up to top_p, in (0, 1]."""
    seed: int = 0
    """Random seed of sampling. The same image and seed give the same captions, whatever the batch."""
    no_repeat_ngram_size: int = 2
    """Length of word sequences that may not occur twice in a caption: 2 forbids repeated pairs of words. 0 allows all
    repetition. neuraltalk2's search ignores it."""
    no_immediate_repeat: bool = False
    """Forbid the same word twice in a row."""
    no_bad_endings: bool = False
    """Forbid captions that end in a word such as a, an, the, of, with, and, in, on, to."""
    min_tokens: int = 0
    """Minimum number of words in a caption."""
    num_beam_groups: int = 1
    """Number of groups into which beam search divides its beams (diverse beam search); must divide beam_size. Each
    group avoids the words that the groups before it have just chosen. 1 is plain beam search."""
    diversity_penalty: float = 0.5
    """Penalty in nats that a word receives for each beam of an earlier group that has just chosen it. Needs two groups
    or more."""
    token_probs: bool = False
    """Write a column `token_probs`: the probability of each word of the caption and of its end. Costs one more decoder
    step per word."""

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ConfigError(f"method is {self.method!r}; choose {', '.join(get_args(Method))}")
        for name in ("beam_size", "max_tokens", "num_candidates"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        most = {"sample": self.num_candidates, "greedy": 1}.get(self.method, self.beam_size)
        if self.num_candidates > most:
            raise ConfigError(f"num_candidates is {self.num_candidates}; {self.method} gives at most {most}")
        if self.length_penalty < 0 or self.temperature <= 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ConfigError("need length_penalty ≥ 0, temperature > 0, top_k ≥ 0 and 0 < top_p ≤ 1")
        if not 0 <= self.min_tokens <= self.max_tokens or self.no_repeat_ngram_size < 0 or self.diversity_penalty < 0:
            raise ConfigError("need 0 ≤ min_tokens ≤ max_tokens, no_repeat_ngram_size ≥ 0 and diversity_penalty ≥ 0")
        self._check_groups()
        self._check_neuraltalk2()

    def _check_groups(self) -> None:
        if self.num_beam_groups == 1:
            return
        if self.num_beam_groups < 1 or self.beam_size % self.num_beam_groups:
            raise ConfigError(
                f"num_beam_groups is {self.num_beam_groups} and beam_size {self.beam_size}; "
                "the first must divide the second"
            )
        if self.method != "beam":
            raise ConfigError(
                f"num_beam_groups is {self.num_beam_groups} and method {self.method}; only a beam has groups"
            )

    def _check_neuraltalk2(self) -> None:
        if self.method != "neuraltalk2":
            return
        beyond = ("no_immediate_repeat", "no_bad_endings", "min_tokens")
        asked = [name for name in beyond if getattr(self, name)] + ["num_beam_groups"] * (self.num_beam_groups > 1)
        if self.no_repeat_ngram_size not in (0, Search.no_repeat_ngram_size):  # the default may not have been asked for
            asked.append("no_repeat_ngram_size")
        if asked:
            raise ConfigError(f"method is neuraltalk2, which has no {asked[0]}; choose beam")
