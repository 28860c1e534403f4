"""Removes the metadata of an encoded image: EXIF, ICC profiles, XMP, text.

Pillow rejects some images with undamaged pixels because their metadata is damaged; other decoders show them. This
module looks only at the structure around the pixels and never fails: unknown structures stay unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = (b"tRNS",)  # the only ancillary chunk that affects Pillow's pixels
_WEBP_METADATA_BITS = 0x20 | 0x08 | 0x04  # of the flags in VP8X: ICC profile, EXIF, XMP
_TIFF_STRUCTURE = frozenset(
    [
        *range(254, 270),  # kind of image, sides, bits, compression, photometric interpretation, fill order
        *range(273, 285),  # where the strips are, orientation, samples, planes
        *(292, 293, 317, 320, 330, 338, 339, 340, 341, 347),  # fax, predictor, palette, extra samples, JPEG tables
        *range(322, 326),  # where the tiles are
        *range(332, 335),  # inks
        *range(512, 522),  # JPEG as TIFF 6.0 has it
        *range(529, 533),  # YCbCr
    ]
)
_HEIF_METADATA_ITEM = re.compile(rb"(infe(?:\x02.{3}.{2}|\x03.{3}.{4}).{2})(?:Exif|mime)", re.DOTALL)


def without_metadata(data: bytes) -> Iterator[bytes]:
    """Yields the image without metadata except EXIF, which may hold the orientation, then without EXIF, too.

    Yields nothing if there is no metadata, or for formats other than JPEG, PNG, WebP, TIFF, AVIF and HEIF.
    """
    strip = _strip_of(data)
    versions = [data, *(strip(data, keep_exif) for keep_exif in (True, False))] if strip else []
    yield from (version for before, version in pairwise(versions) if version != before)


def _strip_of(data: bytes) -> Callable[[bytes, bool], bytes] | None:
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg
    if data.startswith(_PNG):
        return _png
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _tiff
    return _heif if data[4:8] == b"ftyp" else None


def _jpeg(data: bytes, keep_exif: bool) -> bytes:
    """Removes comments and application segments except JFIF and Adobe, which defines the colour encoding."""
    kept, position = [data[:2]], 2
    while data[position : position + 1] == b"\xff" and position + 4 <= len(data):
        marker = data[position + 1]
        if marker == 0xDA:  # the scan follows  # noqa: PLR2004
            break
        stop = position + 2 + int.from_bytes(data[position + 2 : position + 4])
        is_exif = marker == 0xE1 and data[position + 4 : position + 10] == b"Exif\0\0"  # noqa: PLR2004
        is_metadata = marker == 0xFE or (0xE1 <= marker <= 0xEF and marker != 0xEE)  # noqa: PLR2004
        if not is_metadata or (is_exif and keep_exif):
            kept.append(data[position:stop])
        position = stop
    return b"".join([*kept, data[position:]])


def _png(data: bytes, keep_exif: bool) -> bytes:
    kept, position = [_PNG], len(_PNG)
    while position + 12 <= len(data):
        kind = data[position + 4 : position + 8]
        stop = position + 12 + int.from_bytes(data[position : position + 4])
        if kind[:1].isupper() or kind in _PNG_KEPT or (kind == b"eXIf" and keep_exif):
            kept.append(data[position:stop])
        position = stop
    return b"".join([*kept, data[position:]])


def _webp(data: bytes, keep_exif: bool) -> bytes:
    kept, position = [], 12
    while position + 8 <= len(data):
        kind = data[position : position + 4]
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        stop = position + 8 + size + size % 2
        chunk = data[position:stop]
        if kind == b"VP8X" and not keep_exif:
            chunk = chunk[:8] + bytes([chunk[8] & ~_WEBP_METADATA_BITS]) + chunk[9:] if len(chunk) > 8 else chunk  # noqa: PLR2004
        if kind not in (b"ICCP", b"XMP ") and (keep_exif or kind != b"EXIF"):
            kept.append(chunk)
        position = stop
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def _tiff(data: bytes, keep_exif: bool) -> bytes:
    """Replaces the entries of the first directory that the pixels do not need by unknown bytes.

    The orientation is an entry of its own and stays; `keep_exif` has no effect.
    """
    order = "little" if data.startswith(b"II") else "big"
    offset_bytes, count_bytes, entry_bytes = (8, 8, 20) if data[2:4] in (b"+\0", b"\0+") else (4, 2, 12)

    def number(start: int, size: int) -> int:
        return int.from_bytes(data[start : start + size], "little" if order == "little" else "big")

    first = number(offset_bytes, offset_bytes)
    start = first + count_bytes
    stripped = bytearray(data)
    for entry in range(
        start, min(start + number(first, count_bytes) * entry_bytes, len(data) - entry_bytes + 1), entry_bytes
    ):
        if number(entry, 2) not in _TIFF_STRUCTURE:
            fields = [(65000, 2), (1, 2), (1, offset_bytes), (0, offset_bytes)]  # tag, BYTE, how many, value
            values = b"".join(value.to_bytes(size, "little" if order == "little" else "big") for value, size in fields)
            stripped[entry : entry + entry_bytes] = values
    return bytes(stripped)


def _heif(data: bytes, keep_exif: bool) -> bytes:
    """Renames the type of EXIF and XMP items, also in AVIF. Rotations are properties and stay."""
    return data if keep_exif else _HEIF_METADATA_ITEM.sub(rb"\1free", data)
