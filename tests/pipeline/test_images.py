"""Encoded images, whole and damaged in every way."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from conftest import encoded, jpeg, picture
from PIL import Image

from model.preprocessing import Preprocessing
from pipeline.errors import DataError
from pipeline.images import MAX_PIXELS, load
from pipeline.schema import ErrorCode

FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "TGA", "JPEG2000", "AVIF"]
MARKED = ["JPEG", "PNG", "WEBP", "GIF", "TIFF"]  # formats that say what they are in their first bytes


def code_of(data: bytes) -> ErrorCode:
    with pytest.raises(DataError) as raised:
        load(data)
    assert raised.value.message
    return ErrorCode(raised.value.code)


def png_of_size(width: int, height: int) -> bytes:
    """A PNG's header, and next to no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("form", FORMATS)
def test_an_image_is_decoded(form: str) -> None:
    image, size = load(encoded(picture(1, 48, 32), form))
    assert size == image.size == (48, 32)
    difference = np.asarray(image.convert("RGB")).astype(int) - np.asarray(picture(1, 48, 32))
    assert np.abs(difference).mean() < 12


@pytest.mark.parametrize("form", MARKED)
def test_an_image_cut_anywhere_is_corrupt(form: str) -> None:
    data = encoded(picture(1, 40, 30), form)
    for cut in {12, 20, 30, 50, len(data) // 4, len(data) // 2, len(data) * 3 // 4}:
        assert code_of(data[:cut]) == ErrorCode.CORRUPT_IMAGE, cut


def test_a_jpeg_without_its_last_line_is_corrupt() -> None:
    assert code_of(encoded(picture(1, 400, 300))[:-300]) == ErrorCode.CORRUPT_IMAGE


def test_a_jpeg_cut_in_its_headers_is_corrupt() -> None:
    data = jpeg(1)
    assert {code_of(data[:cut]) for cut in range(3, data.index(b"\xff\xda"))} == {ErrorCode.CORRUPT_IMAGE}


def test_no_bytes_are_an_empty_file() -> None:
    assert code_of(b"") == ErrorCode.EMPTY_FILE


@pytest.mark.parametrize(
    "data",
    [
        b"a dog runs",
        b"\0",
        bytes(5000),
        b"<html><img></html>",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7",
    ],
)
def test_what_is_no_image_is_told_apart(data: bytes) -> None:
    assert code_of(data) == ErrorCode.NOT_AN_IMAGE


@pytest.mark.parametrize("size", [(50_000, 50_000), (2_000_000_000, 2_000_000_000), (MAX_PIXELS // 10 + 1, 10)])
def test_a_bomb_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    assert code_of(png_of_size(*size)) == ErrorCode.DECOMPRESSION_BOMB


def test_a_large_image_is_no_bomb() -> None:
    assert (
        code_of(png_of_size(13_000, 13_000)) == ErrorCode.CORRUPT_IMAGE
    )  # more than Pillow warns of; it has no pixels


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_several_is_taken(form: str) -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue", "lime")]
    options: dict[str, Any] = {} if form == "TIFF" else {"duration": 50}
    image, size = load(encoded(frames[0], form, save_all=True, append_images=frames[1:], **options))
    assert size == (40, 30)
    red, green, blue = image.convert("RGB").getpixel((20, 15))  # type: ignore[misc]
    assert red > 240
    assert max(green, blue) < 20


def test_an_inverted_cmyk_jpeg_has_its_colours() -> None:
    image, _ = load(encoded(Image.new("CMYK", (40, 30), (0, 255, 255, 0))))
    assert image.mode == "CMYK"
    pixel = Preprocessing(image_size=4, resize_size=4).pixels(image)[2, 2]
    assert np.abs(pixel.astype(int) - (255, 0, 0)).max() <= 8


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_is_the_displayed_one(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    _, size = load(encoded(picture(1, 40, 30), exif=exif))
    assert size == ((30, 40) if orientation in (6, 8) else (40, 30))


def test_the_size_is_that_before_a_draft() -> None:
    image, size = load(encoded(picture(1, 400, 300)), draft=Preprocessing(image_size=64, resize_size=64).draft)
    assert (image.size, size) == ((100, 75), (400, 300))


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0garbage!!",
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\x7f",
        b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\2\0\4\0\0\0abc\0\0\0\0\0",  # the orientation is "abc"
    ],
)
def test_damaged_metadata_spoils_no_image(exif: bytes) -> None:
    image, size = load(encoded(picture(1, 40, 30), exif=exif))
    assert size == (40, 30)
    assert Preprocessing(image_size=8, resize_size=8).pixels(image).shape == (8, 8, 3)


def test_any_flipped_bytes_are_an_image_or_a_data_error() -> None:
    generator = np.random.default_rng(0)
    for form in FORMATS:
        intact = encoded(picture(1, 20, 15), form)
        for _ in range(40):
            data = bytearray(intact)
            for position in generator.integers(0, len(data), 3):
                data[position] = generator.integers(256)
            try:
                image, _ = load(bytes(data))
            except DataError as error:
                assert error.code in set(ErrorCode)
            else:
                assert isinstance(image, Image.Image)


def test_an_image_is_decoded_when_it_is_given() -> None:
    image, _ = load(jpeg(1))
    assert image.tobytes()
    assert image.fp is None  # type: ignore[attr-defined]


def test_bytes_behind_the_image_do_no_harm() -> None:
    whole, _ = load(jpeg(1))
    longer, _ = load(jpeg(1) + b"trailing bytes" * 99)
    assert io.BytesIO(whole.tobytes()).getvalue() == longer.tobytes()
