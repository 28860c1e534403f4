r"""File names: the extensions of images, one path for each file, and the conversion of any name to valid text."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from pipeline.errors import InputError

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
"""Lower-case extensions of files that count as images in folders and tars, whether or not Pillow can decode them."""

_FILE = "file://"
_AMBIGUOUS = re.compile(r"\\+(?=x[89a-f][0-9a-f]|[\udc80-\udcff])")
_ESCAPED = re.compile(r"(\\+)(x[89a-f][0-9a-f])?")


def printable(name: str) -> str:
    r"""Returns a name from the operating system or a tar as valid text, with bytes that are not UTF-8 as `\xNN`.

    Different names stay different: a backslash before such a byte, or before `x80` to `xff` in the name itself, is
    doubled. Other names are returned unchanged.
    """
    return _valid(_AMBIGUOUS.sub(lambda match: 2 * match[0], name))


def _valid(name: str) -> str:
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a UTF-16 pair, of JSON say, and no byte
        return name.encode("utf-8", "surrogatepass").decode("utf-8", "backslashreplace")


def from_printable(text: str) -> str:
    """Returns the name from which `printable` made this text."""

    def original(match: re.Match[str]) -> str:
        slashes, escape = len(match[1]), match[2]
        if not escape:
            return match[0]
        byte = os.fsdecode(bytes.fromhex(escape[1:])) if slashes % 2 else escape
        return "\\" * (slashes // 2) + byte

    return _ESCAPED.sub(original, text)


def is_text(name: str) -> bool:
    """Returns whether a name from the operating system is UTF-8."""
    return not any("\udc80" <= character <= "\udcff" for character in name)


def for_terminal(text: str) -> str:
    r"""Escapes text for a terminal, so that control characters in names cannot move the cursor or break lines.

    Control characters, line ends and marks of writing direction become `\n`, `\x1b`, `\u202e` and the like.
    """
    text = _valid(text)
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def normalize_path(name: str) -> str:
    """Returns `/in` for `file:///in` and `/x/../in`; other names unchanged.

    Links before a `..` are resolved, as the parent of a link's target is not the folder of the link. Raises InputError
    for a file URL of another machine.
    """
    if name.lower().startswith(_FILE):
        host, slash, path = name[len(_FILE) :].partition("/")
        if host not in ("", "localhost"):
            raise InputError(f"{name} is on another machine; mount its folder here, and give the path")
        name = slash + path
        if not os.path.lexists(name):
            name = unquote(name, errors="surrogateescape")
    if "://" in name or ".." not in name.split("/"):
        return name
    parts = Path(name).expanduser().absolute().parts
    after = len(parts) - parts[::-1].index("..")
    return str(Path(os.path.realpath(Path(*parts[:after])), *parts[after:]))
