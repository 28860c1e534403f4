"""File names: which are images, and how any of them fits a string column."""

from __future__ import annotations

EXTENSIONS = frozenset(
    [
        "jpg",
        "jpeg",
        "jpe",
        "jfif",
        "png",
        "webp",
        "gif",
        "bmp",
        "dib",
        "tif",
        "tiff",
        "ppm",
        "pgm",
        "pbm",
        "pnm",
        "avif",
        "jp2",
        "tga",
        "ico",
    ]
)
"""Extensions, lower case, of what is taken for an image in folders and tars."""


def printable(name: str) -> str:
    r"""A name from the operating system or a tar with its undecodable bytes as `\xNN`. Others stay as they are."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def for_terminal(text: str) -> str:
    r"""Text as a terminal may get it: names in it that hold control characters cannot move the cursor or make lines.

    They, line ends, and marks that turn the direction of writing, become `\n`, `\x1b`, `\u202e` and the like.
    """
    text = printable(text)
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
