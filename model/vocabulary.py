"""Words and their ids.

Id 0 is both START and END: the decoder's first word input is 0, and it ends a caption by generating 0. Ids 1…N are the
words in the order of `vocabulary.json`. A vocabulary may contain the word `UNK`, which replaces every rare word.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from model.errors import VocabularyError

END = 0
UNKNOWN = "UNK"

FORBIDDEN_FINAL_WORDS = frozenset(
    ["a", "an", "the", "of", "with", "in", "on", "at", "to", "for", "from", "and", "this", "his", "her", "is", "are"]
)
"""Words that end a caption only if it was cut short."""


@dataclass(frozen=True)
class Vocabulary:
    """The words of a captioner and their ids.

    Args:
        words: distinct, non-empty words without white space; `words[i]` has id `i + 1`.

    Raises VocabularyError if there are no words, or one is empty, repeated or contains white space.
    """

    words: tuple[str, ...]
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ids = {word: i for i, word in enumerate(self.words, start=1)}
        if not ids:
            raise VocabularyError("the vocabulary is empty; lower word_count_threshold or give more captions")
        if len(ids) != len(self.words):
            repeated = next(word for word, count in Counter(self.words).items() if count > 1)
            raise VocabularyError(f"the vocabulary holds {repeated!r} more than once")
        for word in ids:
            if word.split() != [word]:
                raise VocabularyError(f"the vocabulary holds {word!r}, which is empty or contains white space")
        object.__setattr__(self, "_ids", ids)

    @classmethod
    def from_counts(cls, counts: Counter[str], *, word_count_threshold: int) -> Vocabulary:
        """Builds a vocabulary of the words counted *more than* `word_count_threshold` times, most frequent first.

        Its last word is `UNK` if any word was rarer, as in neuraltalk2's `prepro.py`.
        """
        frequent = [word for word, count in counts.items() if count > word_count_threshold and word != UNKNOWN]
        frequent.sort(key=lambda word: (-counts[word], word))
        rare = len(frequent) < len(counts)
        return cls((*frequent, UNKNOWN) if rare else tuple(frequent))

    @property
    def size(self) -> int:
        """Number of ids: one per word, and END."""
        return len(self.words) + 1

    @property
    def suppressed_ids(self) -> list[int]:
        """Ids that captions must not contain: that of `UNK`, if the vocabulary has it."""
        return [self._ids[UNKNOWN]] if UNKNOWN in self._ids else []

    @property
    def forbidden_final_ids(self) -> list[int]:
        """Ids of words that should not be the last one of a caption."""
        return [i for word, i in self._ids.items() if word in FORBIDDEN_FINAL_WORDS]

    def encode(self, words: Iterable[str]) -> list[int]:
        """Returns the ids of words, without END; unknown words get the id of `UNK`.

        Raises VocabularyError for an unknown word if the vocabulary has no `UNK`.
        """
        unknown = self._ids.get(UNKNOWN)
        ids = [self._ids.get(word, unknown) for word in words]
        if None in ids:
            raise VocabularyError("a caption has a word outside the vocabulary, which has no UNK")
        return ids  # type: ignore[return-value]

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the words of ids up to the first END, joined by spaces."""
        words = []
        for token in ids:
            if token == END:
                break
            words.append(self.words[token - 1])
        return " ".join(words)

    def save(self, path: Path) -> None:
        """Writes `{"words": […]}` as UTF-8 JSON."""
        path.write_text(json.dumps({"words": self.words}, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Reads a file that `save` wrote. Raises VocabularyError if it is no vocabulary."""
        try:
            words = json.loads(path.read_text(encoding="utf-8"))["words"]
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise VocabularyError(f"{path} is not a vocabulary: {error}") from error
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise VocabularyError(f'{path} is not a vocabulary: "words" must be a list of strings')
        return cls(tuple(words))
