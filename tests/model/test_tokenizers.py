"""Tokenizers: from the text of a caption to its words."""

import pytest

from model.tokenizers import tokenize, tokenize_as_neuraltalk2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A dog's T-shirt – “naïve” café, 2×!", ["a", "dog's", "t-shirt", "naïve", "café", "2"]),
        ("  Two\tdogs\n run. ", ["two", "dogs", "run"]),
        ("the dogs’ 'quoted' -dashed- rock'n'roll", ["the", "dogs", "quoted", "dashed", "rock'n'roll"]),
        ("ﬁve ＡＢＣ ①", ["five", "abc", "1"]),
        ("cafe\u0301", ["café"]),
        ("एक कुत्ता दौड़ता है।", ["एक", "कुत्ता", "दौड़ता", "है"]),
        ("STRASSE straße İstanbul", ["strasse", "straße", "i̇stanbul"]),
        ("snow_man a/b a,b", ["snow", "man", "a", "b", "a", "b"]),
        ("🐶 $ + ’ - '-'", []),
        ("", []),
    ],
)
def test_a_caption_is_split_into_words(text: str, words: list[str]) -> None:
    assert tokenize(text) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't stop; it's the dog's ball!", ["dont", "stop", "its", "the", "dogs", "ball"]),
        ("a/b c\\d e_f g|h", ["ab", "cd", "ef", "gh"]),
        ("100% of 3.5 people & 2 dogs @ $4.99", ["100", "of", "35", "people", "2", "dogs", "499"]),
        ("\x0bvertical\ftab  ", ["vertical", "tab"]),
        ("control \x1c separators\u00a0here", ["control", "\x1c", "separators\u00a0here"]),
        ("naïve – ÉTÉ", ["naïve", "–", "été"]),
        ("-- ... !", []),
    ],
)
def test_a_caption_is_split_as_neuraltalk2_did(text: str, words: list[str]) -> None:
    assert tokenize_as_neuraltalk2(text) == words
