"""Which formats are opened, and what is said of an image of any other.

Only formats on the list are opened, whatever Pillow knows: by themselves, some of its readers start programs.
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
"""Names of Pillow's readers that decode by themselves.

Not among them: EPS, which has Ghostscript run what is a program; IPTC, which opens what it holds in any format, EPS
included; WMF, BUFR, GRIB, HDF5 and MPEG, which decode nothing; IMT, which takes texts for images.
"""

_SIGNED = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF", "JPEG2000", "ICNS", "QOI", "PSD", "DDS", "BLP", "FITS", "XPM")
"""Formats whose first bytes are no chance: what begins like one and cannot be opened is damaged, not another file."""

CONVERT = "convert it to JPEG or PNG"
_HEIF_BRANDS = frozenset(b"heic heix hevc hevx heim heis hevm hevs mif1 msf1 mif2".split())
_AVIF_BRANDS = frozenset(b"avif avis".split())


_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # of a JPEG: its markers from SOF0 to SOF15
_ONE_SCAN_FRAMES = frozenset([0xC0, 0xC1])
_SCAN, _ENDING = 0xDA, 64
_LOSSLESS_FRAMES = frozenset([0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF])


@dataclass(frozen=True, slots=True)
class Plugin:
    """A reader that is an optional package."""

    format: str
    """Its name in Pillow."""
    module: str
    """Imported, it registers itself, or has a function that does."""
    register: str
    extra: str
    """Of Shardtalk, that installs it."""


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
"""Offset, bytes, name, and what to do: images that no reader on the list decodes."""


def plugin_for(data: bytes) -> Plugin | None:
    """The optional reader that an image needs, by its first bytes; None where it needs none."""
    if data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")):
        return _JXL
    if data[4:8] != b"ftyp":
        return None
    stop = min(int.from_bytes(data[:4]), 256)
    brands = {data[8:12], *(data[i : i + 4] for i in range(16, stop, 4))}  # between the two lies a version
    return _HEIF if brands & _HEIF_BRANDS and not brands & _AVIF_BRANDS else None


def register(plugin: Plugin) -> bool:
    """Makes an optional reader known to Pillow, once in each process; False where it is not installed."""
    if plugin.format not in Image.OPEN:
        try:
            module = importlib.import_module(plugin.module)
        except ImportError:
            return False
        if plugin.register:
            getattr(module, plugin.register)()
    return plugin.format in Image.OPEN


def unsupported(data: bytes) -> str | None:
    """What an image is that no reader on the list decodes, and what to do; None for what is not known for one."""
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
    """Whether a JPEG's frame is of a kind that libjpeg has no decoder for; it would call it damaged."""
    frame = next((marker for marker, _ in _jpeg_segments(data) if marker in _FRAMES), None)
    return frame in _LOSSLESS_FRAMES


def ended_jpegs(data: bytes) -> tuple[bytes, bytes] | None:
    """A JPEG that was cut, with two ends: if its pixels are the same with both, all of them were there.

    libjpeg looks a few bytes beyond the pixels. None for other images, and for JPEGs of several scans: whether one
    was to follow, nobody can tell.
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
    """Markers of a JPEG up to the first scan, and the byte offset behind each."""
    position = 2 if data.startswith(b"\xff\xd8\xff") else len(data)
    while data[position : position + 1] == b"\xff" and position + 4 <= len(data):
        yield data[position + 1], position + 2
        if data[position + 1] == _SCAN:
            return
        position += 2 + int.from_bytes(data[position + 2 : position + 4])


def signed_format(data: bytes) -> tuple[str, str] | None:
    """Name of Pillow's reader that the first bytes ask for, and what this build of Pillow lacks to read it, or "".

    None where the first bytes are no signature, or one that may be chance.
    """
    Image.init()
    for name in _SIGNED:
        accept = Image.OPEN[name][1] if name in Image.OPEN else None
        answer = accept(data[:16]) if accept else False
        if answer:
            return name, answer if isinstance(answer, str) else ""
    return ("WEBP", "") if data.startswith(b"RIFF") and data[8:12] == b"WEBP" else None  # cut behind it, for one
