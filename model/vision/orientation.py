"""The EXIF orientation of images: how a viewer turns and mirrors what is in the file."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

_EXIF_ORIENTATION = 0x0112
_ORIENTATIONS = range(1, 9)
_SWAPS_SIDES = (5, 6, 7, 8)
"""These orientations swap width and height; then rows and columns may be mirrored."""
_MIRRORS_ROWS, _MIRRORS_COLUMNS = (3, 4, 7, 8), (2, 3, 6, 7)


def orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation still to be applied, 1 to 8; 1 if there is none or the metadata are damaged.

    Decodes the image first: some of Pillow's readers then apply it themselves (TIFF) or find it only after the pixels
    (PNG).
    """
    image.load()
    return orientation_in_header(image)


def orientation_in_header(image: Image.Image) -> int:
    """Returns the EXIF orientation, as `orientation` does, of an image of which only the header was read."""
    for _ in range(2):  # after a failure, Pillow returns what it read so far
        try:
            found = image.getexif().get(_EXIF_ORIENTATION, 1)
            return int(found) if found in _ORIENTATIONS else 1
        except Exception:  # noqa: BLE001 - a third-party parser of foreign bytes
            continue
    return 1


def displayed_size(image: Image.Image, stored: tuple[int, int] | None = None) -> tuple[int, int]:
    """Returns width and height in pixels as a viewer shows the image, with the EXIF orientation applied.

    Args:
        image: decoded if it is not yet.
        stored: width and height in the file, where `draft` reduced the image; None takes the image's own.
    """
    return shown_size(stored or image.size, orientation(image))


def shown_size(size: tuple[int, int], rotation: int) -> tuple[int, int]:
    """Returns width and height as a viewer shows an image of this size in its file and this EXIF orientation."""
    return (size[1], size[0]) if rotation in _SWAPS_SIDES else size


def upright(pixels: npt.NDArray[Any], rotation: int) -> npt.NDArray[Any]:
    """Returns pixels (H, W, 3) as an EXIF orientation, 1 to 8, wants them shown: (W, H, 3) if it swaps the sides."""
    if rotation in _SWAPS_SIDES:
        pixels = pixels.transpose(1, 0, 2)
    rows, columns = (-1 if rotation in mirroring else 1 for mirroring in (_MIRRORS_ROWS, _MIRRORS_COLUMNS))
    return np.ascontiguousarray(pixels[::rows, ::columns])
