"""Braces in names, as a shell expands them."""

from __future__ import annotations

import os
import re

_NUMBERS = re.compile(r"(\d+)\.\.(\d+)")


def expand_input(text: str) -> list[str]:
    """The names that an input stands for. A file of this machine with braces in its name is that file."""
    return [text] if os.path.lexists(os.path.expanduser(text)) else expand_braces(text)  # noqa: PTH111


def expand_braces(text: str) -> list[str]:
    """`a{1,2}` → a1, a2; `{08..11}` → 08, 09, 10, 11. Other text as it is."""
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
