"""File names as text: what is not UTF-8 is shown by escapes, so that every name fits a string column."""

from __future__ import annotations


def printable(name: str) -> str:
    r"""A name from the operating system or a tar with its undecodable bytes as `\xNN`. Others stay as they are."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
