"""The image formats that are decoded, and messages about all others.

Only listed formats are opened, because some of Pillow's other readers start programs. Which files of folders
and tars are images at all is decided by the extensions in `pipeline.filenames.EXTENSIONS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "DIB", "PPM", "AVIF", "JPEG2000", "ICO", "CUR", "ICNS"),
    *("QOI", "PSD", "PCX", "DCX", "DDS", "BLP", "FTEX", "SGI", "SUN", "XBM", "XPM", "XVTHUMB", "MSP", "IM"),
    *("FITS", "FLI", "GBR", "PIXAR", "MCIDAS", "PCD"),
    *("TGA", "SPIDER"),  # last: these have no signature
)
"""Names of the Pillow readers that are used.

Excluded are EPS, which runs a program in Ghostscript; IPTC, which opens embedded images of any format including EPS;
WMF, BUFR, GRIB, HDF5 and MPEG, which decode nothing; and IMT, which takes text for images.
"""

_SIGNED = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF", "JPEG2000", "ICNS", "QOI", "PSD", "DDS", "BLP", "FITS", "XPM")
"""Formats with an unambiguous signature: a file that has it and cannot be opened is damaged."""

CONVERT = "convert it to JPEG or PNG"
_HEIF_BRANDS = frozenset(b"heic heix hevc hevx heim heis hevm hevs mif1 msf1 mif2".split())
_AVIF_BRANDS = frozenset(b"avif avis".split())


_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers SOF0 to SOF15 of a JPEG
_ONE_SCAN_FRAMES = frozenset([0xC0, 0xC1])
_SCAN, _ENDING = 0xDA, 64
_LOSSLESS_FRAMES = frozenset([0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF])


@dataclass(frozen=True, slots=True)
class Plugin:
    """A Pillow reader from an optional package."""

    format: str
    """Name of the format in Pillow."""
    module: str
    """Module to import."""
    register: str
    """Function of the module that registers the reader; empty if importing the module does."""
    extra: str
    """Extra of Shardtalk that installs the package."""


_HEIF = Plugin("HEIF", "pillow_heif", "register_heif_opener", "heif")
_JXL = Plugin("JXL", "pillow_jxl", "", "jxl")

_UNSUPPORTED = (
    (0, b"%!PS", "PostScript", "it is a program, and no program is run; convert it to PNG elsewhere"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript", "it is a program, and no program is run; convert it to PNG elsewhere"),
    (0, b"\xff\xd8\xff\xf7", "JPEG-LS", CONVERT),
    (0, b"II\xbc\x01", "JPEG XR", CONVERT),
    (0, b"8BPS\0\x02", "PSB, a large Photoshop document", CONVERT),
    (0, b"gimp xcf", "XCF, of GIMP", CONVERT),
    (0, b"\x76\x2f\x31\x01", "OpenEXR", CONVERT),
    (0, b"#?RADIANCE", "Radiance HDR", CONVERT),
    (0, b"#?RGBE", "Radiance HDR", CONVERT),
    (0, b"P7\n", "PAM", CONVERT),
    (0, b"FLIF", "FLIF", CONVERT),
    (0, b"BPG\xfb", "BPG", CONVERT),
    (0, b"\x97JB2\r\n\x1a\n", "JBIG2", CONVERT),
    (0, b"\x8aMNG\r\n\x1a\n", "MNG", CONVERT),
    (0, b"\x8bJNG\r\n\x1a\n", "JNG", CONVERT),
    (0, b"AT&TFORM", "DjVu", CONVERT),
    (0, b"farbfeld", "farbfeld", CONVERT),
    (0, b"\xabKTX ", "KTX", CONVERT),
    (128, b"DICM", "DICOM", CONVERT),
    (0, b"\xd7\xcd\xc6\x9a", "WMF", CONVERT),
    (40, b" EMF", "EMF", CONVERT),
    (8, b"CR\x02\0", "a camera's raw picture (CR2)", CONVERT),
    (4, b"ftypcrx ", "a camera's raw picture (CR3)", CONVERT),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw picture (RAF)", CONVERT),
    (0, b"IIRO", "a camera's raw picture (ORF)", CONVERT),
    (0, b"IIRS", "a camera's raw picture (ORF)", CONVERT),
    (0, b"MMOR", "a camera's raw picture (ORF)", CONVERT),
    (0, b"IIU\0", "a camera's raw picture (RW2)", CONVERT),
    (0, b"FOVb", "a camera's raw picture (X3F)", CONVERT),
    (0, b"\0MRM", "a camera's raw picture (MRW)", CONVERT),
)
"""Images that no listed reader decodes: offset and bytes of the signature, name, advice."""


def plugin_for(data: bytes) -> Plugin | None:
    """Returns the plugin that an image needs, by its first bytes; None if it needs none."""
    if data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")):
        return _JXL
    if data[4:8] != b"ftyp":
        return None
    stop = min(int.from_bytes(data[:4]), 256)
    brands = {data[8:12], *(data[i : i + 4] for i in range(16, stop, 4))}  # a version number lies between the two
    return _HEIF if brands & _HEIF_BRANDS and not brands & _AVIF_BRANDS else None


def register(plugin: Plugin) -> bool:
    """Registers a plugin with Pillow, once in each process; returns False if it is not installed."""
    if plugin.format not in Image.OPEN:
        try:
            module = importlib.import_module(plugin.module)
        except ImportError:
            return False
        if plugin.register:
            getattr(module, plugin.register)()
    return plugin.format in Image.OPEN


def unsupported(data: bytes) -> str | None:
    """Returns name and advice for an image that no listed reader decodes; None if it is not known to be one."""
    for offset, signature, name, advice in _UNSUPPORTED:
        if data.startswith(signature, offset):
            return f"{name}: {advice}"
    if _is_lossless_jpeg(data):
        return f"JPEG, lossless or hierarchical: {CONVERT}"
    beginning = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if beginning.startswith(b"<svg") or (beginning.startswith((b"<?xml", b"<!")) and b"<svg" in beginning):
        return f"SVG: {CONVERT}"
    return None


def _is_lossless_jpeg(data: bytes) -> bool:
    """Returns whether a JPEG has a kind of frame that libjpeg cannot decode and would report as damaged."""
    frame = next((marker for marker, _ in _jpeg_segments(data) if marker in _FRAMES), None)
    return frame in _LOSSLESS_FRAMES


def ended_jpegs(data: bytes) -> tuple[bytes, bytes] | None:
    """Returns a truncated JPEG completed in two ways: if both decode to the same pixels, no pixel was missing.

    libjpeg reads a few bytes beyond the pixels. Returns None for other images, and for JPEGs of several scans, for
    which it cannot be known whether a scan is missing.
    """
    components = 0
    for marker, start in _jpeg_segments(data):
        if marker in _ONE_SCAN_FRAMES:
            components = int.from_bytes(data[start + 7 : start + 8])
        if marker == _SCAN and components and data[start + 2 : start + 3] == bytes([components]):
            kept = data.rstrip(b"\xff")  # half a marker
            return kept + bytes(_ENDING) + b"\xff\xd9", kept + b"\xfe" * _ENDING + b"\xff\xd9"
    return None


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields the markers of a JPEG up to the first scan, each with the byte offset behind it."""
    position = 2 if data.startswith(b"\xff\xd8\xff") else len(data)
    while data[position : position + 1] == b"\xff" and position + 4 <= len(data):
        yield data[position + 1], position + 2
        if data[position + 1] == _SCAN:
            return
        position += 2 + int.from_bytes(data[position + 2 : position + 4])


def signed_format(data: bytes) -> tuple[str, str] | None:
    """Returns the Pillow reader for a signature, and what this build of Pillow lacks to use it, or "".

    Returns None if the first bytes are not an unambiguous signature.
    """
    Image.init()
    for name in _SIGNED:
        accept = Image.OPEN[name][1] if name in Image.OPEN else None
        answer = accept(data[:16]) if accept else False
        if answer:
            return name, answer if isinstance(answer, str) else ""
    return ("WEBP", "") if data.startswith(b"RIFF") and data[8:12] == b"WEBP" else None  # cut behind it, for one
