"""Decoding of undamaged and damaged images."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import encoded, jpeg, picture
from PIL import AvifImagePlugin, Image

from model.vision.preprocessing import Preprocessing
from pipeline.errors import DataError
from pipeline.images.decoding import MAX_PIXELS, decode, load
from pipeline.schema import ErrorCode

FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "TGA", "JPEG2000", "AVIF"]
MARKED = ["JPEG", "PNG", "WEBP", "GIF", "TIFF"]  # formats that say what they are in their first bytes


def code_of(data: bytes) -> ErrorCode:
    with pytest.raises(DataError) as raised:
        load(data)
    assert raised.value.message
    return ErrorCode(raised.value.code)


def chunk(kind: bytes, data: bytes) -> bytes:
    """Returns a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_size(width: int, height: int) -> bytes:
    """Makes a PNG whose header claims a size, with hardly any pixels."""
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


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("size", [(16, 16), (100, 75), (641, 480)])
def test_a_jpeg_that_lacks_only_its_end_is_whole(mode: str, size: tuple[int, int]) -> None:
    for seed in range(5):
        data = encoded(picture(seed, *size).convert(mode), quality=60 + 9 * seed)
        for cut in (1, 2):
            assert load(data[:-cut])[0].tobytes() == load(data)[0].tobytes()
            assert load(data[:-cut], draft=lambda image: image.draft(None, (20, 20)))[1] == size
        for cut in (4, 6, 9, 20):
            assert code_of(data[:-cut]) == ErrorCode.CORRUPT_IMAGE


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


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nundefinedop\n%%EOF\n"


def in_iptc(held: bytes) -> bytes:
    """Makes an IPTC record that embeds an image of another format."""

    def record(number: int, tag: int, data: bytes) -> bytes:
        return bytes([0x1C, number, tag]) + struct.pack(">H", len(data)) + data

    sides = record(3, 20, struct.pack(">H", 100)) + record(3, 30, struct.pack(">H", 100))
    return record(3, 60, b"\1\0") + sides + record(3, 120, b"\5") + record(8, 10, held)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (POSTSCRIPT, ErrorCode.UNSUPPORTED_FORMAT),
        (
            b"\xc5\xd0\xd3\xc6" + struct.pack("<7I", 32, len(POSTSCRIPT), 0, 0, 0, 0, 0) + POSTSCRIPT,
            "unsupported_format",
        ),
        (in_iptc(POSTSCRIPT), ErrorCode.NOT_AN_IMAGE),
    ],
    ids=["PostScript", "PostScript with a preview", "PostScript in IPTC"],
)
def test_no_program_is_run(data: bytes, code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / "image").write_bytes(data)
    program = "import sys; from pipeline.images.decoding import load; load(open(sys.argv[1], 'rb').read())"
    ended = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "image"], capture_output=True, text=True, check=False
    )
    assert "DataError" in ended.stderr
    assert not (tmp_path / "ran").exists()
    assert code_of(data) == code


@pytest.mark.parametrize(
    "data",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- by hand -->\n<svg/>",
        b"8BPS\0\2" + bytes(40),
        b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
        b"II*\0\x10\0\0\0CR\2\0" + bytes(40),
        b"\xd7\xcd\xc6\x9a" + bytes(60),
        b"v/1\x01" + bytes(60),
        bytes(128) + b"DICM" + bytes(60),
    ],
)
def test_an_image_that_no_reader_decodes_is_not_called_damaged(data: bytes) -> None:
    assert code_of(data) == ErrorCode.UNSUPPORTED_FORMAT


def tiff_with(tag: int, value: int) -> bytes:
    data = encoded(picture(1), "TIFF")
    place = data.index(struct.pack("<HHI", tag, 3, 1)) + 8
    return data[:place] + struct.pack("<H", value) + data[place + 2 :]


def jpeg_with(place: int, value: int) -> bytes:
    data = bytearray(jpeg(1))
    data[data.index(b"\xff\xc0") + place] = value
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [tiff_with(259, 34713), tiff_with(262, 32803), jpeg_with(1, 0xC3), jpeg_with(4, 12)],
    ids=["a camera's compression", "a camera's mosaic", "lossless", "of 12 bits"],
)
def test_a_kind_of_a_known_format_without_a_decoder_is_unsupported(data: bytes) -> None:
    assert code_of(data) == ErrorCode.UNSUPPORTED_FORMAT


def heic() -> bytes:
    heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    heif.from_pillow(picture(1, 48, 32)).save(buffer)
    return buffer.getvalue()


def test_a_cut_heic_is_damaged() -> None:
    with pytest.raises(DataError) as caught:
        load(heic()[:200])
    assert caught.value.code == "corrupt_image"


def test_heic_is_decoded_where_its_extra_is_installed() -> None:
    image, size = load(heic(), draft=Preprocessing(image_size=8, resize_size=8).draft)
    assert size == image.size == (48, 32)
    difference = np.asarray(image.convert("RGB")).astype(int) - np.asarray(picture(1, 48, 32))
    assert np.abs(difference).mean() < 12


def test_a_jxl_is_decoded_where_its_extra_is_installed() -> None:
    pytest.importorskip("pillow_jxl")
    assert load(encoded(picture(1, 48, 32), "JXL"))[1] == (48, 32)


@pytest.mark.parametrize(
    ("data", "module", "extra"),
    [
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + bytes(50), "pillow_heif", "shardtalk[heif]"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(50), "pillow_heif", "shardtalk[heif]"),
        (b"\xff\x0a" + bytes(50), "pillow_jxl", "shardtalk[jxl]"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50), "pillow_jxl", "shardtalk[jxl]"),
    ],
)
def test_a_missing_extra_is_named(data: bytes, module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    for name in ("HEIF", "JXL"):
        monkeypatch.delitem(Image.OPEN, name, raising=False)
    with pytest.raises(DataError, match=rf"pip install '{extra[:9]}\[{extra[10:-1]}\]'") as raised:
        load(data)
    assert raised.value.code == ErrorCode.UNSUPPORTED_FORMAT


def test_a_build_of_pillow_without_avif_is_not_called_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(picture(1), "AVIF")
    monkeypatch.setattr(AvifImagePlugin, "SUPPORTED", False)
    assert code_of(data) == ErrorCode.UNSUPPORTED_FORMAT


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (RecursionError("too deep"), ErrorCode.CORRUPT_IMAGE),
        (subprocess.CalledProcessError(1, "gs"), ErrorCode.CORRUPT_IMAGE),
        (SyntaxError("not a TIFF file"), ErrorCode.CORRUPT_IMAGE),
        (AssertionError(), ErrorCode.CORRUPT_IMAGE),
        (ValueError("\ud83d"), ErrorCode.CORRUPT_IMAGE),
        (ValueError("x" * 5000), ErrorCode.CORRUPT_IMAGE),
        (MemoryError(), ErrorCode.OUT_OF_MEMORY),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_a_reader_raises_is_named(raised: Exception, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.load", broken)
    with pytest.raises(DataError, match=f"^{type(raised).__name__}") as found:
        load(jpeg(1))
    assert found.value.code == code
    assert len(found.value.message.encode()) < 1100


@pytest.mark.parametrize("ended", [KeyboardInterrupt, SystemExit])
def test_an_interruption_is_no_damage(ended: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise ended

    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.load", interrupted)
    with pytest.raises(ended):
        load(jpeg(1))


def test_an_error_of_ours_is_not_taken_for_damage() -> None:
    def draft(image: Image.Image) -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        load(jpeg(1), draft=draft)


def test_a_palette_that_cannot_be_read_is_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("image has no palette")

    data = encoded(picture(1).convert("P"), "PNG")
    monkeypatch.setattr(Image.Image, "convert", broken)
    with pytest.raises(DataError, match="ValueError: image has no palette"):
        decode(data, Preprocessing(image_size=8, resize_size=8))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_tiff_has_the_size_that_a_viewer_shows(orientation: int, compression: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    _, size = load(encoded(picture(1, 100, 60), "TIFF", exif=exif, compression=compression))
    assert size == ((60, 100) if orientation >= 5 else (100, 60))


def test_an_orientation_behind_a_pngs_pixels_is_found() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(picture(1, 40, 30), "PNG")
    _, size = load(data[:-12] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + data[-12:])
    assert size == (30, 40)


@pytest.mark.parametrize("kept", ["EXIF", "nothing"])
def test_damaged_metadata_leave_an_exif_that_is_whole(kept: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(picture(1, 40, 30), "PNG", **({"exif": exif} if kept == "EXIF" else {}))
    profile = chunk(b"iCCP", b"name\0\5of no known compression")
    _, size = load(data[:33] + profile + data[33:])
    assert size == ((30, 40) if kept == "EXIF" else (40, 30))


def test_an_avif_with_damaged_exif_is_decoded() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description"
    data = encoded(picture(1, 40, 30), "AVIF", exif=exif)
    spoilt = data.replace(exif.tobytes().removeprefix(b"Exif\0\0")[:8], b"garbage!")
    assert spoilt != data
    assert load(spoilt)[1] == (40, 30)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "TGA", "AVIF", "ICO", "MPO"])
def test_images_of_8_bits_have_pillows_own_pixels(form: str) -> None:
    data = encoded(picture(1, 90, 70), form, **({"sizes": [(90, 70)]} if form == "ICO" else {}))
    with Image.open(io.BytesIO(data)) as image:
        expected = image.convert("RGB").resize((60, 50), Image.Resampling.BILINEAR)
    found, _ = load(data)
    assert np.array_equal(np.asarray(found.convert("RGB").resize((60, 50), Image.Resampling.BILINEAR)), expected)
    pixels, _ = decode(data, Preprocessing(image_size=60, resize_size=60))
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(pixels, image.convert("RGB").resize((60, 60), Image.Resampling.BILINEAR))
