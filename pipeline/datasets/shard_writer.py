"""Writes WebDataset tars of images and their captions; the same samples give the same bytes.

A shard appears under its final name only when it is complete; before that its name ends in `.part`.
"""

from __future__ import annotations

import io
import os
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from PIL import Image
from webdataset import TarWriter

from model.vision.orientation import orientation
from model.vision.preprocessing import draft_jpeg
from pipeline.errors import DataError
from pipeline.filenames import EXTENSIONS
from pipeline.images.decoding import load, rgb
from pipeline.schema import ErrorCode

MAX_JPEG_SIDE = 65_500  # pixels; libjpeg writes no larger ones
_MEMBER_METADATA: dict[str, Any] = {"user": "", "group": "", "mode": 0o644, "mtime": 0}
"""Fixed metadata of the members of a tar, so that the same samples give the same bytes."""
_ORIENTATION = 0x0112  # EXIF
_EXTENSION_OF_FORMAT = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif", "JPEG2000": "jp2", "PPM": "ppm"}


class ShardWriter:
    """Writes samples to `folder/{name}-000000.tar`, `…-000001.tar`, and so on.

    ```python
    with ShardWriter(Path("out/train"), "train", shard_images=1000) as writer:
        writer.write("dog", {"jpg": image_bytes, "json": record_bytes})
    ```

    Where the block ends in an exception, the shard that was being written is dropped; earlier ones stay.
    """

    # Not webdataset's own ShardWriter: it writes under the final name, and closes a half shard like a whole one when an
    # exception passes.

    def __init__(self, folder: Path, name: str, *, shard_images: int) -> None:
        self._folder, self._name, self._shard_images = folder, name, shard_images
        self._file: BinaryIO | None = None
        self._tar: TarWriter | None = None
        self._images = 0
        self.shards: list[Path] = []
        """Completed shards."""

    def write(self, key: str, files: Mapping[str, bytes]) -> None:
        """Adds a sample: its files by extension without the dot, in alphabetical order. `KeyAssigner` gives the key."""
        if self._tar is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = self._part.open("wb")
            self._tar = TarWriter(self._file, encoder=False, format="PAX_FORMAT", **_MEMBER_METADATA)
        self._tar.write({"__key__": key, **files})
        self._images += 1
        if self._images == self._shard_images:
            self._finish()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tar is None:
            return
        if kind is None:
            self._finish()
        else:
            self._close()
            self._part.unlink()

    @property
    def _path(self) -> Path:
        return self._folder / f"{self._name}-{len(self.shards):06d}.tar"

    @property
    def _part(self) -> Path:
        return self._path.with_suffix(".tar.part")

    def _finish(self) -> None:
        self._close()
        self._part.replace(self._path)
        self.shards.append(self._path)
        self._images = 0

    def _close(self) -> None:
        assert self._tar is not None and self._file is not None
        self._tar.close()
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._tar = self._file = None


class KeyAssigner:
    """Assigns each file path a unique WebDataset key."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def assign(self, file_path: str) -> str:
        """Returns the path without extension, with all but letters (of any script), digits, `-`, `_`, `/` as `_`.

        A key that is taken gets the first free of `_2`, `_3`, ….

        >>> keys = Keys()
        >>> keys.of("../a b/c.d.jpg"), keys.of("a_b/c_d.png")
        ('a_b/c_d', 'a_b/c_d_2')
        """
        folder, slash, name = file_path.rpartition("/")
        stem, dot, _ = name.rpartition(".")
        parts = (folder + slash + (stem if dot and stem else name)).split("/")
        clean = "/".join(_clean(part) for part in parts if part.strip(".")) or "image"
        key, number = clean, 1
        while key in self._taken:
            number += 1
            key = f"{clean}_{number}"
        self._taken.add(key)
        return key


def _clean(part: str) -> str:
    return "".join(c if c in "_-" or unicodedata.category(c)[0] in "LMN" else "_" for c in part)


def read_image(path: Path) -> bytes:
    """Reads an image file. Raises DataError if it does not exist or cannot be read."""
    try:
        if not path.is_file():
            raise DataError(ErrorCode.UNREADABLE, "is a folder or device" if path.exists() else "no such file")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name no file can have
        raise DataError(ErrorCode.UNREADABLE, str(error)) from error


def check_image(path: Path) -> None:
    """Checks that an image file can be decoded to its end and stored in a shard. Raises DataError."""
    # A JPEG is read to its end at any scale, and at the smallest in the least time.
    image, _ = load(read_image(path), draft=lambda opened: draft_jpeg(opened, (1, 1)))
    _extension(path, image)


def stored_image(path: Path, *, image_size: int, quality: int) -> tuple[str, bytes]:
    """Returns the extension (without dot) and the bytes that are stored in a shard.

    Args:
        path: path of an image that passed `check_image`.
        image_size: shorter side in pixels, to which larger images are scaled; others are copied. 0 copies all images.
        quality: JPEG quality of scaled images, which keep their EXIF orientation and no other metadata.
    """
    data = read_image(path)
    if not image_size:
        return _suffix(path) if _suffix(path) in EXTENSIONS else _extension(path, load(data)[0]), data
    wanted: list[tuple[int, int]] = []  # as stored, before EXIF rotation

    def draft(opened: Image.Image) -> None:
        wanted.append(_scaled(opened.size, image_size))
        draft_jpeg(opened, wanted[0])

    image, displayed = load(data, draft=draft)
    if min(displayed) <= image_size or max(wanted[0]) > MAX_JPEG_SIDE:
        return _extension(path, image), data
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation(image)
    scaled = rgb(image).resize(wanted[0], Image.Resampling.LANCZOS)
    scaled.info.clear()  # comments and profiles would be written too
    encoded = io.BytesIO()
    scaled.save(encoded, "JPEG", quality=quality, exif=exif)
    return "jpg", encoded.getvalue()


def _scaled(size: tuple[int, int], image_size: int) -> tuple[int, int]:
    scale = image_size / min(size)
    return max(image_size, round(size[0] * scale)), max(image_size, round(size[1] * scale))


def _suffix(path: Path) -> str:
    return path.suffix[1:].lower()


def _extension(path: Path, image: Image.Image) -> str:
    """Returns the file's extension if it is one of images, else that of the image's format."""
    if _suffix(path) in EXTENSIONS:
        return _suffix(path)
    kind = str(image.format)
    extension = _EXTENSION_OF_FORMAT.get(kind, kind.lower())
    if extension not in EXTENSIONS:
        raise DataError(ErrorCode.NOT_AN_IMAGE, f"{kind} is no format that shards hold; convert it to JPEG or PNG")
    return extension
