"""Vocabulary: words, ids, and the file that stores them."""

import json
from collections import Counter
from pathlib import Path

import pytest

from model.errors import VocabularyError
from model.vocabulary import END, Vocabulary


def test_words_are_those_seen_more_than_the_threshold() -> None:
    counts = Counter({"b": 3, "a": 3, "once": 1, "twice": 2, "often": 9})
    assert Vocabulary.from_counts(counts, word_count_threshold=2).words == ("often", "a", "b", "UNK")
    assert Vocabulary.from_counts(counts, word_count_threshold=1).words == ("often", "a", "b", "twice", "UNK")


def test_there_is_no_unknown_word_where_none_was_too_rare() -> None:
    vocabulary = Vocabulary.from_counts(Counter({"a": 2, "b": 1}), word_count_threshold=0)
    assert vocabulary.words == ("a", "b")
    with pytest.raises(VocabularyError, match="outside the vocabulary"):
        vocabulary.encode(["a", "c"])


def test_only_rare_words_are_no_captioner_s() -> None:
    assert Vocabulary.from_counts(Counter({"a": 1}), word_count_threshold=5).words == ("UNK",)
    with pytest.raises(VocabularyError, match="empty"):
        Vocabulary.from_counts(Counter(), word_count_threshold=0)


def test_ids_begin_after_end() -> None:
    vocabulary = Vocabulary(("a", "dog", "UNK"))
    assert vocabulary.size == 4
    assert vocabulary.encode(["dog", "cat", "a"]) == [2, 3, 1]
    assert vocabulary.decode([2, 1, END, 2]) == "dog a"
    assert vocabulary.decode([END]) == vocabulary.decode([]) == ""
    assert vocabulary.suppressed_ids == [3]
    assert Vocabulary(("a", "dog")).suppressed_ids == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((), "is empty"),
        (("a", "b", "a"), "'a' more than once"),
        (("a", ""), "empty or contains white space"),
        (("a", "b c"), "'b c'"),
        (("a", " b"), "' b'"),
        (("a", "b\u00a0c"), "white space"),
    ],
)
def test_words_that_make_no_vocabulary_are_refused(words: tuple[str, ...], reason: str) -> None:
    with pytest.raises(VocabularyError, match=reason):
        Vocabulary(words)


def test_a_saved_vocabulary_is_loaded_as_it_was(tmp_path: Path) -> None:
    vocabulary = Vocabulary(("a", "naïve", "ज्ञान", "dog's", '"', "UNK"))
    vocabulary.save(tmp_path / "vocabulary.json")
    assert Vocabulary.load(tmp_path / "vocabulary.json") == vocabulary
    assert "ज्ञान" in (tmp_path / "vocabulary.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b"null", b"{}", b'{"words": "ab"}', b'{"words": [1]}', b'{"words": ["a", "a"]}'],
)
def test_a_file_that_is_no_vocabulary_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "vocabulary.json").write_bytes(content)
    with pytest.raises(VocabularyError):
        Vocabulary.load(tmp_path / "vocabulary.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match=r"nothing\.json"):
        Vocabulary.load(tmp_path / "nothing.json")


def test_a_vocabulary_is_a_list_of_words_for_other_tools(tmp_path: Path) -> None:
    Vocabulary(("a", "b")).save(tmp_path / "vocabulary.json")
    assert json.loads((tmp_path / "vocabulary.json").read_text()) == {"words": ["a", "b"]}
