"""Decodes images; with Pillow, the only module that turns its errors into error codes, or faster what `jpeg` can."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator

from PIL import Image, UnidentifiedImageError

from model.errors import PixelError
from model.vision.image_modes import to_rgb
from model.vision.orientation import displayed_size
from model.vision.preprocessing import Pixels, Preprocessing
from pipeline.errors import DataError
from pipeline.images.formats import CONVERT, FORMATS, ended_jpegs, plugin_for, register, signed_format, unsupported
from pipeline.images.jpeg import decode_jpeg
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
"""Pillow's messages about images that may be undamaged but for which it has no decoder."""


def decode(data: bytes, preprocessing: Preprocessing) -> tuple[Pixels, Size]:
    """Returns the captioner's pixels, (image_size, image_size, 3) uint8, and the image's displayed width and height.

    Raises DataError as `load` does.
    """
    if found := decode_jpeg(data, preprocessing, MAX_PIXELS):
        return found
    image, size = load(data, draft=preprocessing.draft)
    with _conversion_boundary():
        return preprocessing.pixels(image), size


def rgb(image: Image.Image) -> Image.Image:
    """Converts a loaded image to RGB as for the captioner. Raises DataError."""
    with _conversion_boundary():
        return to_rgb(image)


def load(data: bytes, *, draft: Draft | None = None) -> tuple[Image.Image, Size]:
    """Decodes the first frame; returns it with its displayed width and height in pixels.

    Damaged metadata, or a missing end marker of a JPEG, does not matter if the pixels are complete.

    Args:
        data: an encoded image.
        draft: called before decoding, to request a smaller scale of a JPEG (`Preprocessing.draft`).

    Raises DataError for an image that cannot be decoded to its end.
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
        warnings.simplefilter("ignore")  # Pillow warns about odd metadata and large images
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
    """Returns the names of the Pillow readers to try. Raises DataError if the required plugin is not installed."""
    plugin = plugin_for(data)
    if not plugin:
        return FORMATS
    if not register(plugin):
        install = f"pip install 'shardtalk[{plugin.extra}]'"
        raise DataError(ErrorCode.UNSUPPORTED_FORMAT, f"{plugin.format}: to decode it, {install}")
    return (plugin.format,)


@contextlib.contextmanager
def _pillow_boundary(data: bytes) -> Iterator[None]:
    """The boundary around Pillow's parsers of foreign bytes: turns every exception into a DataError."""
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
    """Turns errors of the conversion to RGB, caused by a damaged palette or transparency, into a DataError."""
    try:
        yield
    except MemoryError as error:
        raise DataError(ErrorCode.OUT_OF_MEMORY, _describe(error)) from error
    except PixelError as error:
        raise DataError(ErrorCode.CORRUPT_IMAGE, str(error)) from error


def _unidentified(data: bytes) -> DataError:
    """Returns the reason why none of the allowed readers recognized the image."""
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
        Image.OPEN[name][0](io.BytesIO(data), "")  # again, because `Image.open` hides the reason
    except Exception as error:  # noqa: BLE001 - third-party parsers of foreign bytes
        return _failure(error, data)
    return DataError(ErrorCode.CORRUPT_IMAGE, f"{len(data)} bytes, cut or damaged in its headers")


def _failure(error: Exception, data: bytes) -> DataError:
    known = unsupported(data)
    if known:
        return DataError(ErrorCode.UNSUPPORTED_FORMAT, known)
    if isinstance(error.__cause__, KeyError) or _MISSING_DECODER.search(
        str(error)
    ):  # KeyError: TIFF's compression or mode
        return DataError(ErrorCode.UNSUPPORTED_FORMAT, f"no decoder for it ({_describe(error)}); {CONVERT}")
    return DataError(ErrorCode.CORRUPT_IMAGE, _describe(error))


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
