"""Decides by name which files are inputs, and describes those that are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from pipeline.errors import InputError
from pipeline.filenames import EXTENSIONS, printable
from pipeline.shards import STANDARD_INPUT, ShardFormat, extension_of, format_of

COMPRESSED = "compressed tars (unpack them to have them read)"
HIDDEN = "hidden"
LINKS = "links to folders that are listed already"
_COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar.lz4")
_OTHERS = {
    "an archive; unpack it into a folder": "zip 7z rar gz bz2 xz zst lz4 cpio iso",
    "a document; convert its pages to images, with pdftoppm say": "pdf djvu doc docx ppt pptx odt odp ps",
    "a video; extract frames to a folder, with ffmpeg say": (
        "mp4 m4v mov avi mkv webm mpg mpeg wmv flv 3gp ogv mts m2ts"
    ),
    "no list that is read; write its paths or URLs to a .txt, .csv, .tsv or .jsonl file": (
        "json xml xls xlsx ods yaml yml"
    ),
    "read in no way; write its images to a tar, a Parquet file or a folder": (
        "h5 hdf5 npz npy arrow feather tfrecord tfrecords lmdb mdb sqlite db avro orc lance mat pt pth pkl pickle"
        " safetensors beton rec"
    ),
    "a sound": "mp3 wav flac ogg m4a aac",
}
COMPRESSION = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")
"""First bytes of gzip, bzip2, xz, zstd and lz4."""
_SIGNATURES = {
    "a compressed file; unpack it first": COMPRESSION,
    "a zip archive; unpack it into a folder": (b"PK\3\4", b"PK\5\6"),
    "an archive; unpack it into a folder": (b"7z\xbc\xaf\x27\x1c", b"Rar!"),
    "a Parquet file; let its name end in .parquet": (b"PAR1",),
    "a PDF; convert its pages to images, with pdftoppm say": (b"%PDF",),
    "the pointer of Git LFS to a file; `git lfs pull` gets it": (b"version https://git-lfs",),
    "an image; let its name end in an image's extension": (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*"),
}
_MARKUP = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<error")
_UNREADABLE_TYPES = {extension: what for what, extensions in _OTHERS.items() for extension in extensions.split()}


def is_input(name: str, ignored: Counter[str]) -> bool:
    """Returns whether a file of a folder holds images, by its name; counts it in `ignored` by its kind if not."""
    base, extension = name.rpartition("/")[2].lower(), extension_of(name)
    if base.startswith("."):
        ignored[HIDDEN] += 1
        return False
    if extension in EXTENSIONS or extension in (ShardFormat.TAR, ShardFormat.PARQUET):
        return True
    if base.endswith(_COMPRESSED_TARS):
        ignored[COMPRESSED] += 1
        return False
    ignored[printable(f".{extension}" if extension else "no extension")] += 1
    return False


def image_id_of(name: str) -> str:
    """Returns the image_id of an image file; empty for a shard of many images."""
    return printable(name) if format_of(name) == ShardFormat.IMAGE or name == STANDARD_INPUT else ""


def check_readable(path: str) -> None:
    """Raises InputError, with advice, for an input file of a type that is not read."""
    if path.lower().endswith(_COMPRESSED_TARS):
        raise InputError(f"{printable(path)} is compressed, so it cannot be read from the middle; unpack it first")
    if what := _UNREADABLE_TYPES.get(extension_of(path)):
        raise InputError(f"{printable(path)} is {what}")


def recognize(head: bytes) -> str:
    """Recognizes a file by its first bytes; returns its type and advice, or an empty text if the bytes are unknown."""
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_MARKUP):
        return "a web page or a message of a server; download the file again"
    return next((what for what, beginnings in _SIGNATURES.items() if head.startswith(beginnings)), "")


def no_images_error(given: str, ignored: Counter[str]) -> InputError:
    """Returns the exception for an input without images, which lists the files found there instead."""
    found = f"; it has {format_counts(ignored)}" if ignored else ""
    return InputError(f"{printable(given)} holds no images{found}")


def format_counts(kinds: Mapping[str, int]) -> str:
    """Formats counts by kind as text, the most frequent first."""
    return ", ".join(f"{kind} {count}" for kind, count in Counter(kinds).most_common())


def matches_extension(pattern: str, extensions: Iterable[str]) -> bool:
    """Returns whether a pattern such as `*.txt` ends in one of these extensions, so that it asks for such files."""
    return extension_of(pattern) in extensions
