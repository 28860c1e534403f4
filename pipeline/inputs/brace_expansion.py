"""Expands braces in names as a shell does."""

from __future__ import annotations

import os
import re

_NUMBERS = re.compile(r"(\d+)\.\.(\d+)")


def expand_input(text: str) -> list[str]:
    """Returns the names that an input stands for. An existing local file with braces in its name is not expanded."""
    return [text] if os.path.lexists(os.path.expanduser(text)) else expand_braces(text)  # noqa: PTH111


def expand_braces(text: str) -> list[str]:
    """Expands `a{1,2}` to a1, a2 and `{08..11}` to 08, 09, 10, 11; returns other text unchanged."""
    match = re.search(r"\{([^{}]*)\}", text)
    if not match:
        return [text]
    numbers = _NUMBERS.fullmatch(match[1])
    if numbers:
        first, last = int(numbers[1]), int(numbers[2])
        choices = [f"{n:0{len(numbers[1])}d}" for n in range(first, last + 1)]
    elif "," in match[1]:
        choices = match[1].split(",")
    else:
        return [text]
    return [name for choice in choices for name in expand_braces(text[: match.start()] + choice + text[match.end() :])]
