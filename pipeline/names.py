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
