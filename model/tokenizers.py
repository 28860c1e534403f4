"""Tokenizers: from the text of a caption to its words."""

from __future__ import annotations

import re
import string
import unicodedata

_INNER = "'’-"  # kept inside a word: "dog's", "t-shirt"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ASCII_SPACE = re.compile("[ \\t\\n\\r\\v\\f]+")  # white space as Python 2 defines it


def tokenize(text: str) -> list[str]:
    """Splits a caption into words: NFKC, lower case, no punctuation or symbols except `'` and `-` inside a word.

    Works on any script that puts spaces between words: combining marks stay with their letter.

    >>> tokenize("A dog's T-shirt – “naïve” café, 2×!")
    ['a', "dog's", 't-shirt', 'naïve', 'café', '2']
    """
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" or c in _INNER else " " for c in text)
    return [word for word in (token.strip(_INNER) for token in kept.split()) if word]


def tokenize_as_neuraltalk2(text: str) -> list[str]:
    r"""Splits a caption as neuraltalk2's prepro.py does: lower case, no ASCII punctuation, at ASCII white space.

    Where prepro.py ends with an error, at a letter beyond ASCII, the letter stays.

    >>> tokenize_as_neuraltalk2("Don't stop; a/b\x1c  2-year")
    ['dont', 'stop', 'ab\x1c', '2year']
    """
    return [word for word in _ASCII_SPACE.split(text.lower().translate(_NO_PUNCTUATION)) if word]
