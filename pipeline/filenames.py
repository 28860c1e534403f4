r"""File names: which are images, and how any of them fits a string column."""

from __future__ import annotations

import os
import re

_PHOTOS = (
    "jpg jpeg jpe jfif jif pjpeg pjp png apng webp gif bmp dib tif tiff avif avifs avci heic heics heif heifs hif jxl"
)
_JPEG_2000_AND_OTHERS = "jp2 j2k j2c jpc jpf jpx jpm jxr wdp hdp mpo jps"
_DRAWN = (
    "psd psb xcf svg tga ico cur icns pcx dcx sgi dds qoi ppm pgm pbm pnm pam pfm xbm xpm exr hdr wmf emf eps bpg flif "
    "blp fit fits fli flc ftc ftu gbr im msp pcd pxr bw rgb rgba ras icb vda vst"
)
_SENSORS = "dng cr2 cr3 crw nef nrw arw srf sr2 raf orf rw2 rwl pef srw x3f 3fr fff iiq kdc dcr mrw erf mef mos gpr"
EXTENSIONS = frozenset(" ".join([_PHOTOS, _JPEG_2000_AND_OTHERS, _DRAWN, _SENSORS]).split())
"""Extensions, lower case, of what is taken for an image in folders and tars, whether Pillow decodes it or not."""

_AMBIGUOUS = re.compile(r"\\+(?=x[89a-f][0-9a-f]|[\udc80-\udcff])")
_ESCAPED = re.compile(r"(\\+)(x[89a-f][0-9a-f])?")


def printable(name: str) -> str:
    r"""A name from the operating system or a tar as valid text: bytes that are not UTF-8 as `\xNN`.

    Two names never become one: a backslash that stands before such a byte, or in the name itself before `x80` to
    `xff`, is doubled. Other names stay as they are.
    """
    return _valid(_AMBIGUOUS.sub(lambda match: 2 * match[0], name))


def _valid(name: str) -> str:
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a UTF-16 pair, of JSON say, and no byte
        return name.encode("utf-8", "surrogatepass").decode("utf-8", "backslashreplace")


def from_printable(text: str) -> str:
    """The name that `printable` made this text of."""

    def original(match: re.Match[str]) -> str:
        slashes, escape = len(match[1]), match[2]
        if not escape:
            return match[0]
        byte = os.fsdecode(bytes.fromhex(escape[1:])) if slashes % 2 else escape
        return "\\" * (slashes // 2) + byte

    return _ESCAPED.sub(original, text)


def is_text(name: str) -> bool:
    """Whether a name from the operating system is UTF-8."""
    return not any("\udc80" <= character <= "\udcff" for character in name)


def for_terminal(text: str) -> str:
    r"""Text as a terminal may get it: names in it that hold control characters cannot move the cursor or make lines.

    They, line ends, and marks that turn the direction of writing, become `\n`, `\x1b`, `\u202e` and the like.
    """
    text = _valid(text)
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
