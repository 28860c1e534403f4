"""Preprocessing: from an image to pixels, and from pixels to floats."""

import io
import resource

import numpy as np
import pytest
import torch
from PIL import Image

from model.errors import OptionError
from model.vision import torch7_image
from model.vision.image_modes import to_rgb
from model.vision.orientation import displayed_size
from model.vision.preprocessing import Preprocessing

RED, GREEN, BLUE, WHITE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (128, 128, 128)
UNCHANGED = Preprocessing(image_size=4, resize_size=4)


def plain(mode: str, colour: object, size: tuple[int, int] = (9, 5)) -> Image.Image:
    return Image.new(mode, size, colour)  # type: ignore[arg-type]


def palette(transparent: int | bytes | None) -> Image.Image:
    """A palette image of index 1, which is red in the palette."""
    image = plain("P", 1)
    image.putpalette([*BLUE, *RED])
    if transparent is not None:
        image.info["transparency"] = transparent
    return image


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        (plain("RGB", (10, 20, 30)), (10, 20, 30)),
        (plain("L", 77), (77, 77, 77)),
        (plain("1", 1), WHITE),
        (plain("1", 0), (0, 0, 0)),
        (plain("RGBA", (*RED, 255)), RED),
        (plain("RGBA", (*RED, 0)), WHITE),
        (plain("RGBA", (0, 0, 0, 128)), (127, 127, 127)),
        (plain("LA", (0, 0)), WHITE),
        (plain("LA", (50, 255)), (50, 50, 50)),
        (palette(None), RED),
        (palette(1), WHITE),
        (palette(0), RED),
        (palette(b"\xff\x80"), (255, 127, 127)),
        (plain("CMYK", (0, 255, 255, 0)), RED),
        (plain("YCbCr", (76, 85, 255)), (254, 0, 0)),
        (plain("HSV", (0, 255, 255)), RED),
        (Image.fromarray(np.full((5, 9), 32896, np.uint16)), GREY),
        (Image.fromarray(np.full((5, 9), 65535, np.uint16)), WHITE),
        (plain("I", 32896), GREY),
        (plain("I", 70000), WHITE),
        (plain("I", -5), (0, 0, 0)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_any_mode_becomes_rgb(image: Image.Image, colour: tuple[int, int, int]) -> None:
    pixels = UNCHANGED.pixels(image)
    assert (pixels.shape, pixels.dtype) == ((4, 4, 3), np.uint8)
    assert np.abs(pixels.astype(int) - colour).max() <= 1


def test_a_transparent_colour_of_an_rgb_image_is_white() -> None:
    image = plain("RGB", GREEN)
    image.info["transparency"] = GREEN
    assert to_rgb(image).getpixel((0, 0)) == WHITE


def test_16_bit_greys_are_scaled_not_clipped() -> None:
    image = Image.fromarray(np.array([[0, 257 * 10], [257 * 100, 65535]], np.uint16))
    assert np.asarray(to_rgb(image))[..., 0].tolist() == [[0, 10], [100, 255]]


def test_a_16_bit_png_keeps_its_greys() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.array([[257 * 7, 257 * 200]], np.uint16)).save(buffer, "PNG")
    assert np.asarray(to_rgb(Image.open(buffer)))[..., 1].tolist() == [[7, 200]]


@pytest.mark.parametrize(
    ("greatest", "scaled_by"),
    [(200, 255), (255, 255), (256, 1023), (1023, 1023), (3000, 4095), (4095, 4095), (9000, 16383), (40_000, 65535)],
)
@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_deep_greys_are_scaled_by_the_bits_that_they_need(greatest: int, scaled_by: int, mode: str) -> None:
    values = np.array([[0, greatest // 2, greatest]])
    kind = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4"}[mode]
    image = Image.frombytes(mode, (3, 1), values.astype(kind).tobytes())
    expected = [int(value * 255 / scaled_by) for value in values[0]]
    assert np.abs(np.asarray(to_rgb(image))[0, :, 1].astype(int) - expected).max() <= 1


def test_greys_of_32_bits_are_scaled_by_their_greatest() -> None:
    image = Image.fromarray(np.array([[0, 50_000, 100_000]], np.int32))
    assert np.asarray(to_rgb(image))[0, :, 1].tolist() == [0, 127, 255]


def test_what_is_no_number_is_black_and_what_is_infinite_white() -> None:
    image = Image.fromarray(np.array([[np.nan, -np.inf, 0.5, 1.0, np.inf]], np.float32))
    assert np.asarray(to_rgb(image))[0, :, 1].tolist() == [0, 0, 127, 255, 255]


@pytest.mark.parametrize(
    ("greys", "expected"),
    [([0.0, 0.5, 1.0], [0, 127, 255]), ([0.0, 5.0, 20.0], [0, 63, 255]), ([-3.0, 0, 0], [0, 0, 0])],
)
def test_float_greys_span_up_to_their_greatest(greys: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([greys], np.float32))
    assert np.asarray(to_rgb(image))[0, :, 2].tolist() == expected


def corners() -> Image.Image:
    """12 × 8 pixels: red, green over blue, white. No turn or mirror gives it back."""
    image = Image.new("RGB", (12, 8))
    for colour, place in ((RED, (0, 0)), (GREEN, (6, 0)), (BLUE, (0, 4)), (WHITE, (6, 4))):
        image.paste(colour, (*place, place[0] + 6, place[1] + 4))
    return image


def with_orientation(orientation: int, form: str = "PNG") -> Image.Image:
    """Returns `corners` as a rotated camera stores it."""
    stored_as = {  # the inverse of what a viewer does, from the EXIF standard
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_90],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_270],
        8: [Image.Transpose.ROTATE_270],
    }
    image = corners()
    for step in stored_as[orientation]:
        image = image.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))
    return Image.open(buffer)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("resize", ["stretch", "shorter_side"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(orientation: int, resize: str, form: str) -> None:
    preprocessing = Preprocessing(image_size=6, resize=resize, resize_size=8)  # type: ignore[arg-type]
    assert np.array_equal(preprocessing.pixels(with_orientation(orientation, form)), preprocessing.pixels(corners()))
    image = with_orientation(orientation, form)
    assert displayed_size(image) == (12, 8)
    assert np.array_equal(preprocessing.pixels(image), preprocessing.pixels(corners()))


@pytest.mark.parametrize("orientation", [0, 9, 99, "abc"])
def test_an_orientation_that_does_not_exist_is_ignored(orientation: object) -> None:
    image = corners()
    image.getexif()[0x0112] = orientation
    assert np.array_equal(UNCHANGED.pixels(image), UNCHANGED.pixels(corners()))
    assert displayed_size(image) == (12, 8)


@pytest.mark.parametrize("resize", ["stretch", "shorter_side"])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (5, 7)])
def test_any_size_becomes_the_square(size: tuple[int, int], resize: str) -> None:
    preprocessing = Preprocessing(image_size=6, resize=resize, resize_size=8)  # type: ignore[arg-type]
    pixels = preprocessing.pixels(plain("RGB", (10, 20, 30), size))
    assert pixels.shape == (6, 6, 3)
    assert (pixels == (10, 20, 30)).all()


def test_stretch_keeps_the_edges_and_shorter_side_the_aspect() -> None:
    image = plain("RGB", RED, (40, 10))
    image.paste(BLUE, (15, 0, 25, 10))  # the middle square
    stretched = Preprocessing(image_size=8, resize_size=8).pixels(image)
    assert tuple(stretched[4, 0]) == tuple(stretched[4, 7]) == RED
    kept = Preprocessing(image_size=8, resize="shorter_side", resize_size=10).pixels(image)
    assert (kept == BLUE).all()


@pytest.mark.parametrize("size", [(1, 30_000), (30_000, 1)])
def test_a_long_strip_is_not_scaled_to_its_whole_length(size: tuple[int, int]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
    pixels = Preprocessing(image_size=100, resize="shorter_side", resize_size=150).pixels(plain("RGB", RED, size))
    assert (pixels == RED).all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10  # whole, it is 2.7 GB


def test_the_middle_is_cut_out() -> None:
    ramp = np.tile(np.arange(10, dtype=np.uint8)[:, None, None], (1, 10, 3))
    pixels = Preprocessing(image_size=4, resize_size=10).pixels(Image.fromarray(ramp))
    assert pixels[:, 0, 0].tolist() == [3, 4, 5, 6]


@pytest.mark.parametrize("offset", [None, 0, 16, 32])
def test_at_another_size_the_same_part_is_seen(offset: int | None) -> None:
    found = Preprocessing(image_size=224, resize_size=256, crop_offset=offset, std=(1.0, 1.0, 1.0)).with_image_size(112)
    expected = None if offset is None else offset // 2
    assert found == Preprocessing(image_size=112, resize_size=128, crop_offset=expected, std=(1.0, 1.0, 1.0))


@pytest.mark.parametrize("side", [1, 2, 5, 64])
def test_a_crop_stays_within_at_any_size(side: int) -> None:
    found = [
        Preprocessing(image_size=side, resize_size=side + 5, crop_offset=5).with_image_size(other)
        for other in range(1, 100)
    ]
    assert [resized.image_size for resized in found] == list(range(1, 100))


def test_normalize_subtracts_the_mean_and_divides_by_the_deviation() -> None:
    preprocessing = Preprocessing(image_size=4, resize_size=4, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), np.uint8)
    floats = preprocessing.normalize(torch.from_numpy(pixels))
    assert (floats.shape, floats.dtype) == ((3, 3, 4, 5), torch.float32)
    assert floats.is_contiguous(memory_format=torch.channels_last)
    for channel, (mean, std) in enumerate(zip((0.1, 0.2, 0.3), (0.5, 0.25, 2.0), strict=True)):
        np.testing.assert_allclose(floats[:, channel], (pixels[..., channel] / 255 - mean) / std, atol=1e-5)


def test_normalize_leaves_the_pixels_as_they_are() -> None:
    pixels = torch.full((2, 4, 5, 3), 9, dtype=torch.uint8)
    UNCHANGED.normalize(pixels)
    assert (pixels == 9).all()


@pytest.mark.parametrize(
    ("size", "resize", "decoded"),
    [
        ((199, 150), "stretch", (199, 150)),  # less than twice as wide
        ((200, 400), "stretch", (100, 200)),
        ((400, 800), "stretch", (100, 200)),
        ((800, 900), "stretch", (100, 113)),
        ((300, 260), "shorter_side", (150, 130)),
        ((300, 190), "shorter_side", (300, 190)),
    ],
)
def test_a_jpeg_is_decoded_smaller_where_it_is_twice_as_large(
    size: tuple[int, int], resize: str, decoded: tuple[int, int]
) -> None:
    buffer = io.BytesIO()
    plain("RGB", RED, size).save(buffer, "JPEG")
    image = Image.open(buffer)
    Preprocessing(image_size=90, resize=resize, resize_size=100).draft(image)  # type: ignore[arg-type]
    assert image.size == decoded


def test_the_middle_of_a_strip_is_where_it_was() -> None:
    image = plain("RGB", RED, (7, 101))
    image.paste(BLUE, (0, 47, 7, 54))
    preprocessing = Preprocessing(image_size=14, resize="shorter_side", resize_size=14)
    whole = image.resize((14, 202), Image.Resampling.BILINEAR).crop((0, 94, 14, 108))
    assert np.array_equal(preprocessing.pixels(image), np.asarray(whole))


def test_a_png_is_not_decoded_smaller() -> None:
    buffer = io.BytesIO()
    plain("RGB", RED, (400, 400)).save(buffer, "PNG")
    image = Image.open(buffer)
    Preprocessing(image_size=90, resize_size=100).draft(image)
    assert image.size == (400, 400)


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": 0},
        {"image_size": 9, "resize_size": 8},
        {"resize": "longer_side"},
        {"resampling": "nearest"},
        {"loading": "upside down"},
        {"crop_offset": -1},
        {"crop_offset": 33, "resize_size": 256},
        {"crop_offset": 1},
    ],
)
def test_an_option_out_of_range_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        Preprocessing(**options)  # type: ignore[arg-type]


TORCH = Preprocessing(image_size=6, resize_size=8, resampling="torch", crop_offset=0, loading="torch")


@pytest.mark.parametrize("orientation", range(2, 9))
def test_an_orientation_may_be_ignored(orientation: int) -> None:
    image = with_orientation(orientation)
    turned = Image.fromarray(np.asarray(image))
    assert np.array_equal(TORCH.pixels(image), TORCH.pixels(turned))
    assert not np.array_equal(TORCH.pixels(image), TORCH.pixels(corners()))


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        (plain("RGBA", (10, 20, 30, 0)), (10, 20, 30)),
        (plain("RGBA", (10, 20, 30, 128)), (10, 20, 30)),
        (plain("LA", (50, 0)), (50, 50, 50)),
        (plain("L", 77), (77, 77, 77)),
        (palette(None), RED),
        (palette(1), RED),
        (palette(b"\xff\x80"), RED),
        (plain("1", 1), WHITE),
        (Image.fromarray(np.full((5, 9), 0xFE80, np.uint16)), (254, 254, 254)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_transparency_may_be_left_out(image: Image.Image, colour: tuple[int, int, int]) -> None:
    assert (TORCH.pixels(image) == colour).all()


@pytest.mark.parametrize("size", [(5, 20), (20, 5), (5, 7), (20, 30), (8, 8), (8, 20)])
def test_torch_scales_each_direction_by_itself(size: tuple[int, int]) -> None:
    width, height = size
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[:, :, 0] = np.linspace(0, 200, width)
    ramp[:, :, 1] = np.linspace(0, 200, height)[:, None]
    pixels = TORCH.pixels(Image.fromarray(ramp))
    whole = torch7_image.scale(ramp, 8, 8)
    assert np.array_equal(pixels, whole[:6, :6])
    assert (np.diff(pixels[0, :, 0].astype(int)) > 0).all()
    assert (np.diff(pixels[:, 0, 1].astype(int)) > 0).all()


@pytest.mark.parametrize("offset", [0, 2, 6])
def test_the_crop_may_begin_elsewhere(offset: int) -> None:
    ramp = np.tile(np.arange(10, dtype=np.uint8)[:, None, None], (1, 10, 3))
    for image in (ramp, ramp.transpose(1, 0, 2)):
        pixels = Preprocessing(image_size=4, resize_size=10, crop_offset=offset).pixels(Image.fromarray(image))
        assert sorted(set(pixels.flatten().tolist())) == [offset + i for i in range(4)]


def test_where_every_pixel_counts_a_jpeg_is_decoded_whole() -> None:
    buffer = io.BytesIO()
    plain("RGB", RED, (800, 900)).save(buffer, "JPEG")
    image = Image.open(buffer)
    TORCH.draft(image)
    assert image.size == (800, 900)


def test_a_mean_in_bytes_is_subtracted_exactly() -> None:
    mean = (123.68, 116.779, 103.939)
    preprocessing = Preprocessing(mean=[value / 255 for value in mean], std=[1 / 255] * 3)
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(1, 16, 16, 3)
    floats = preprocessing.normalize(pixels)
    for channel, value in enumerate(mean):
        assert torch.equal(floats[0, channel].flatten(), torch.arange(256.0) - torch.tensor(value))
