"""The forms in which a captioner is given its images."""

import io

import numpy as np
import pyarrow as pa
import pytest
from conftest import encoded, jpeg, picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from stage_rows import encoded_rows

from pipeline.captioners.protocol import EncodedImages, RgbImages
from pipeline.inference.decode_stage import DecodeStage
from pipeline.inference.input_columns import input_column

ORIENTATION = 0x0112


def batch_of(inputs: EncodedImages | RgbImages, *images: bytes | None) -> list[object]:
    rows = DecodeStage(inputs)(encoded_rows(*images))
    found = input_column(inputs).batch(pa.concat_tables([rows, rows])["pixels"].drop_null().slice(1))
    assert isinstance(found, list)
    return found


def test_encoded_images_are_the_files_that_can_be_decoded() -> None:
    images = [jpeg(0), b"nothing", jpeg(1)[:200], None, encoded(picture(2), "PNG")]
    rows = DecodeStage(EncodedImages())(encoded_rows(*images))
    assert rows["pixels"].to_pylist() == [images[0], None, None, None, images[4]]
    assert rows["error_code"].to_pylist() == [None, "not_an_image", "corrupt_image", "unreadable", None]
    assert rows["width"].to_pylist() == [33, None, None, None, 40]
    assert batch_of(EncodedImages(), *images) == [images[4], images[0], images[4]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rgb_images_are_upright_and_exact_where_they_are_small_enough(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(picture(orientation, 21, 34), exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    for max_side in (0, 34, 1024):
        found = batch_of(RgbImages(max_side), jpeg(1), data)[0]
        assert isinstance(found, Image.Image) and found.mode == "RGB"
        assert np.array_equal(np.asarray(found), np.asarray(expected))


@given(width=st.integers(1, 90), height=st.integers(1, 90), max_side=st.integers(1, 60), turned=st.booleans())
def test_larger_images_keep_their_shape(width: int, height: int, max_side: int, turned: bool) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6 if turned else 1
    data = encoded(picture(3, width, height), exif=exif)
    shown = (height, width) if turned else (width, height)
    found = batch_of(RgbImages(max_side), data)[0]
    assert isinstance(found, Image.Image)
    scale = min(1.0, max_side / max(shown))
    assert max(found.size) == min(max_side, max(shown))
    for side, before in zip(found.size, shown, strict=True):
        assert abs(side - max(1, before * scale)) <= 0.5


def test_transparency_is_over_white() -> None:
    clear = Image.new("RGBA", (5, 4), (200, 10, 10, 0))
    found = batch_of(RgbImages(), encoded(clear, "PNG"))[0]
    assert isinstance(found, Image.Image) and found.getextrema() == ((255, 255),) * 3


def test_larger_images_are_resized_as_pillow_does() -> None:
    image = picture(4, 90, 60)
    found = batch_of(RgbImages(max_side=45), encoded(image, "PNG"))[0]
    assert isinstance(found, Image.Image)
    assert np.array_equal(np.asarray(found), np.asarray(image.resize((45, 30), Image.Resampling.BICUBIC)))
