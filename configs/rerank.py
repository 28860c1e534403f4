"""Options of the order of candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from configs.errors import ConfigError
from configs.search import Search


@dataclass(frozen=True)
class Rerank:
    """The order of the candidates, if it differs from the search's own. Needs search.num_candidates of 2 or more.

    Raises ConfigError for a value out of range.
    """

    by: Literal["score", "consensus", "captioner"] = "score"
    """score keeps the order of the search. consensus ranks candidates by their mean CIDEr-D against the image's other
    candidates. captioner ranks them by the weighted mean of the search's score and another captioner's."""
    captioner: str = ""
    """Directory, URL or name of the other captioner, which must have the same vocabulary. Used with --rerank.by
    captioner."""
    weight: float = 0.5
    """Weight of the other captioner's score, in [0, 1]; the search's score has the rest."""

    def __post_init__(self) -> None:
        if (self.by == "captioner") != bool(self.captioner):
            raise ConfigError("rerank.captioner goes with rerank.by captioner; give both or neither")
        if not 0.0 <= self.weight <= 1.0:
            raise ConfigError(f"rerank.weight is {self.weight:g}; it must be in [0, 1]")


def check_reranking(rerank: Rerank, search: Search) -> None:
    """Raises ConfigError where there are no candidates to reorder."""
    if rerank.by != "score" and search.num_candidates == 1:
        raise ConfigError(f"rerank.by is {rerank.by} and search.num_candidates 1; it needs at least 2")
