"""Decodes JPEGs by libjpeg-turbo itself, to the pixels that Pillow decodes, in three quarters of the time."""

from __future__ import annotations

import io
import threading
import warnings

import numpy as np
import simplejpeg
from PIL import Image, JpegImagePlugin

from model.vision.orientation import orientation_in_header, shown_size
from model.vision.preprocessing import Pixels, Preprocessing

_START = b"\xff\xd8"
_SCRATCH_BYTES = 16 << 20
_scratch = threading.local()


def decode_jpeg(data: bytes, preprocessing: Preprocessing, max_pixels: int) -> tuple[Pixels, tuple[int, int]] | None:
    """Returns the captioner's pixels and the image's displayed width and height, as `decoding.decode` does.

    Returns None for whatever is not an ordinary JPEG without a flaw, or has more than `max_pixels`: Pillow decides what
    becomes of it, as it does where pixels are not resized by PyTorch.
    """
    if preprocessing.resampling != "antialias" or preprocessing.loading != "standard" or not data.startswith(_START):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about odd metadata and large images
            header = Image.open(io.BytesIO(data), formats=("JPEG",))
            stored = header.size
            if header.format != "JPEG" or header.mode not in ("L", "RGB") or stored[0] * stored[1] > max_pixels:
                return None
            rotation = orientation_in_header(header)
        assert isinstance(header, JpegImagePlugin.JpegImageFile)
        preprocessing.draft(header)
        (width, height), is_reduced = header.size, header.size != stored
        reduced = {"min_width": width, "min_height": height, "min_factor": header.decoderconfig[0]}
        scratch = _scratch_memory(3 * width * height)
        rgb = simplejpeg.decode_jpeg(data, "RGB", buffer=scratch, **(reduced if is_reduced else {}))
    except Exception:  # noqa: BLE001 - third-party parsers of foreign bytes
        return None
    if rgb.shape[1::-1] != header.size:
        return None
    return preprocessing.square(rgb, rotation), shown_size(stored, rotation)


def _scratch_memory(size: int) -> Pixels | None:
    """Returns memory for an image, the same for all images of a thread: new memory costs a third of decoding.

    None for an image of more than 16 MiB.
    """
    if size > _SCRATCH_BYTES:
        return None
    if getattr(_scratch, "memory", None) is None:
        _scratch.memory = np.empty(_SCRATCH_BYTES, np.uint8)
    memory: Pixels = _scratch.memory
    return memory
