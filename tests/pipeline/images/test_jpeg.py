"""JPEGs by libjpeg-turbo itself: Pillow's pixels, and nothing that Pillow would refuse."""

import io
from typing import Any

import numpy as np
import pytest
from conftest import encoded, picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model.vision.preprocessing import Preprocessing
from pipeline.errors import DataError
from pipeline.images.decoding import MAX_PIXELS, decode, load
from pipeline.images.jpeg import decode_jpeg

ANTIALIAS = Preprocessing(resampling="antialias")
Found = tuple[np.ndarray[Any, Any], tuple[int, int]]


def by_pillow(data: bytes, preprocessing: Preprocessing) -> Found:
    image, size = load(data, draft=preprocessing.draft)
    return preprocessing.pixels(image), size


@st.composite
def jpegs(draw: st.DrawFn) -> bytes:
    image = picture(draw(st.integers(0, 9)), draw(st.integers(1, 400)), draw(st.integers(1, 400)))
    options: dict[str, Any] = {"quality": draw(st.integers(1, 100)), "progressive": draw(st.booleans())}
    mode = draw(st.sampled_from(["RGB", "L", "CMYK", "kept RGB"]))
    if mode == "RGB":
        options["subsampling"] = draw(st.integers(0, 2))
    elif mode == "kept RGB":
        options["keep_rgb"] = True
    exif = Image.Exif()
    exif[0x0112] = draw(st.integers(0, 9))
    file = io.BytesIO()
    image.convert(mode.removeprefix("kept ")).save(file, "JPEG", exif=exif, **options)
    return file.getvalue()


preprocessings = st.builds(
    lambda size, margin, resize: Preprocessing(size, resize, size + margin, resampling="antialias"),
    st.integers(1, 120),
    st.integers(0, 20),
    st.sampled_from(["stretch", "shorter_side"]),
)


@given(jpegs(), preprocessings)
def test_pixels_and_size_are_those_of_pillow(data: bytes, preprocessing: Preprocessing) -> None:
    pixels, size = decode(data, preprocessing)
    expected, expected_size = by_pillow(data, preprocessing)
    assert size == expected_size and np.array_equal(pixels, expected)


@given(jpegs(), preprocessings, st.data())
def test_a_damaged_jpeg_is_what_pillow_makes_of_it(
    data: bytes, preprocessing: Preprocessing, more: st.DataObject
) -> None:
    damaged = bytearray(data)
    for _ in range(more.draw(st.integers(1, 3))):
        damaged[more.draw(st.integers(0, len(data) - 1))] = more.draw(st.integers(0, 255))
    damaged = damaged[: more.draw(st.integers(0, len(data)))]
    try:
        expected, expected_size = by_pillow(bytes(damaged), preprocessing)
    except DataError as error:
        with pytest.raises(DataError) as raised:
            decode(bytes(damaged), preprocessing)
        assert raised.value.code == error.code
        return
    pixels, size = decode(bytes(damaged), preprocessing)
    assert size == expected_size and np.array_equal(pixels, expected)


@pytest.mark.parametrize(("mode", "form"), [("RGB", "PNG"), ("RGB", "WEBP"), ("L", "GIF"), ("CMYK", "JPEG")])
def test_another_format_is_left_to_pillow(mode: str, form: str) -> None:
    assert decode_jpeg(encoded(picture(1, 48, 32).convert(mode), form), ANTIALIAS, MAX_PIXELS) is None


def test_an_ordinary_jpeg_is_not_left_to_pillow() -> None:
    data = encoded(picture(1, 48, 32))
    assert decode_jpeg(data, ANTIALIAS, MAX_PIXELS) is not None
    assert decode_jpeg(data, ANTIALIAS, 48 * 32 - 1) is None
    assert decode_jpeg(data[:-2], ANTIALIAS, MAX_PIXELS) is None


def test_images_that_follow_one_another_keep_their_pixels() -> None:
    small, large, huge = (encoded(picture(i, *size)) for i, size in enumerate([(40, 30), (400, 300), (3000, 2500)]))
    found = [decode(data, ANTIALIAS)[0] for data in (small, large, huge, small, large)]
    for data, pixels in zip((small, large, huge, small, large), found, strict=True):
        assert np.array_equal(pixels, by_pillow(data, ANTIALIAS)[0])


def test_antialias_is_bilinear_but_for_rounding() -> None:
    image = picture(3, 640, 480)
    ours, pillows = (
        Preprocessing(288, "stretch", 288, resampling=resampling).pixels(image).astype(int)
        for resampling in ("antialias", "bilinear")
    )
    assert np.abs(ours - pillows).max() <= 1 and (ours != pillows).mean() < 0.01
