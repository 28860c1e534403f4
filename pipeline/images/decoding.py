"""Opens encoded images. The only place where bytes become a PIL image, and Pillow's failures an error code."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator

from PIL import Image, UnidentifiedImageError

from model.errors import PixelError
from model.vision.image_modes import to_rgb
from model.vision.preprocessing import Pixels, Preprocessing, displayed_size
from pipeline.errors import DataError
from pipeline.images.formats import CONVERT, FORMATS, ended_jpegs, plugin_for, register, signed_format, unsupported
from pipeline.images.metadata import without_metadata
from pipeline.schema import ErrorCode

MAX_PIXELS = 178_956_970
"""Larger images are refused as decompression bombs: twice Pillow's warning level, where it raises by default."""

Draft = Callable[[Image.Image], object]
Size = tuple[int, int]

_MISSING_DECODER = re.compile(
    r"unsupported|unimplemented|cannot handle|not available|not installed|unknown (\w+ )?(mode|compression|encoding)",
    re.IGNORECASE,
)
"""What Pillow says of images that may be whole, and that it has no decoder for."""


def decode(data: bytes, preprocessing: Preprocessing) -> tuple[Pixels, Size]:
    """What the captioner looks at, (image_size, image_size, 3), and the image's width and height as displayed.

    Raises DataError as `load` does.
    """
    image, size = load(data, draft=preprocessing.draft)
    with _conversion_boundary():
        return preprocessing.pixels(image), size


def rgb(image: Image.Image) -> Image.Image:
    """RGB of an image that was loaded, as the captioner sees it. Raises DataError."""
    with _conversion_boundary():
        return to_rgb(image)


def load(data: bytes, *, draft: Draft | None = None) -> tuple[Image.Image, Size]:
    """The decoded first frame, and its width and height in pixels as displayed.

    Damaged metadata are left out: what is said about the pixels spoils none of them. Nor does a JPEG's missing end.

    Args:
        data: an encoded image.
        draft: called before decoding, to ask a JPEG for a smaller scale (`Preprocessing.draft`).

    Raises DataError for what cannot be decoded to its end.
    """
    if not data:
        raise DataError(ErrorCode.EMPTY_FILE, "0 bytes")
    try:
        return _load(data, draft)
    except DataError as error:
        if error.code in (ErrorCode.CORRUPT_IMAGE, ErrorCode.UNSUPPORTED_FORMAT):
            for stripped in without_metadata(data):
                with contextlib.suppress(DataError):
                    return _load(stripped, draft)
        if error.code == ErrorCode.CORRUPT_IMAGE and (ended := ended_jpegs(data)):
            with contextlib.suppress(DataError):
                (image, size), (other, _) = (_load(version, draft) for version in ended)
                if image.tobytes() == other.tobytes():
                    return image, size
        raise


def _load(data: bytes, draft: Draft | None) -> tuple[Image.Image, Size]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on odd metadata and large images
        formats = _formats(data)
        with _pillow_boundary(data):
            image = Image.open(io.BytesIO(data), formats=formats)
        stored = image.size
        if stored[0] * stored[1] > MAX_PIXELS:
            raise DataError(ErrorCode.DECOMPRESSION_BOMB, f"{stored[0]}×{stored[1]} pixels")
        if draft:
            draft(image)
        is_drafted = image.size != stored
        with _pillow_boundary(data):
            image.load()
        return image, displayed_size(image, stored if is_drafted else image.size)  # some know their size only now


def _formats(data: bytes) -> tuple[str, ...]:
    """Names of the readers that may try. Raises DataError where the one that is needed is not installed."""
    plugin = plugin_for(data)
    if not plugin:
        return FORMATS
    if not register(plugin):
        install = f"pip install 'shardtalk[{plugin.extra}]'"
        raise DataError(ErrorCode.UNSUPPORTED_FORMAT, f"{plugin.format}: to decode it, {install}")
    return (plugin.format,)


@contextlib.contextmanager
def _pillow_boundary(data: bytes) -> Iterator[None]:
    """The boundary: around Pillow's readers alone, anything they raise on bytes that others made is a DataError."""
    try:
        yield
    except MemoryError as error:
        raise DataError(ErrorCode.OUT_OF_MEMORY, _describe(error)) from error
    except Image.DecompressionBombError as error:
        raise DataError(ErrorCode.DECOMPRESSION_BOMB, str(error)) from error
    except UnidentifiedImageError as error:
        raise _unidentified(data) from error
    except Exception as error:
        raise _failure(error, data) from error


@contextlib.contextmanager
def _conversion_boundary() -> Iterator[None]:
    """What is damaged in an image's palette or transparency shows only when it becomes RGB."""
    try:
        yield
    except MemoryError as error:
        raise DataError(ErrorCode.OUT_OF_MEMORY, _describe(error)) from error
    except PixelError as error:
        raise DataError(ErrorCode.CORRUPT_IMAGE, str(error)) from error


def _unidentified(data: bytes) -> DataError:
    """Why no reader on the list took the image."""
    known = unsupported(data)
    if known:
        return DataError(ErrorCode.UNSUPPORTED_FORMAT, known)
    plugin = plugin_for(data)
    if plugin:
        return DataError(ErrorCode.CORRUPT_IMAGE, f"{plugin.format}: {len(data)} bytes, cut or damaged in its headers")
    signed = signed_format(data)
    if not signed:
        return DataError(ErrorCode.NOT_AN_IMAGE, f"no image format begins with {data[:8]!r}")
    name, lack = signed
    if lack:
        return DataError(ErrorCode.UNSUPPORTED_FORMAT, f"{name}: {lack}; install a Pillow that has it")
    try:
        Image.OPEN[name][0](io.BytesIO(data), "")  # once more: `Image.open` keeps the reason to itself
    except Exception as error:  # noqa: BLE001 - third-party parsers of foreign bytes
        return _failure(error, data)
    return DataError(ErrorCode.CORRUPT_IMAGE, f"{len(data)} bytes, cut or damaged in its headers")


def _failure(error: Exception, data: bytes) -> DataError:
    known = unsupported(data)
    if known:
        return DataError(ErrorCode.UNSUPPORTED_FORMAT, known)
    if isinstance(error.__cause__, KeyError) or _MISSING_DECODER.search(
        str(error)
    ):  # the key: TIFF's compression or mode
        return DataError(ErrorCode.UNSUPPORTED_FORMAT, f"no decoder for it ({_describe(error)}); {CONVERT}")
    return DataError(ErrorCode.CORRUPT_IMAGE, _describe(error))


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
