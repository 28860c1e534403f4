"""Images of every format, undamaged and damaged, give pixels or a typed error, whatever their metadata."""

import faulthandler
import io
import struct
import zlib

import numpy as np
import pytest
from damage import MODES, WITH_EXIF, damaged, encode, fuzzed, images
from hypothesis import assume, example, given
from hypothesis import strategies as st
from PIL import Image

from model.vision.preprocessing import Preprocessing
from pipeline.errors import DataError
from pipeline.images.decoding import decode
from pipeline.schema import ErrorCode

VIEW = Preprocessing(image_size=8, resize_size=8)
AS_TORCH = Preprocessing(image_size=8, resize_size=8, resampling="torch", loading="torch")
HANG_S = 120

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow's, of the damage


def decoded_or_typed(data: bytes) -> None:
    faulthandler.dump_traceback_later(HANG_S, exit=True)  # a hang ends the run, saying where
    try:
        for view in (VIEW, AS_TORCH):
            pixels, size = decode(data, view)
            assert pixels.shape == (8, 8, 3) and min(size) > 0
    except DataError as error:
        assert error.code in set(ErrorCode)
        assert error.message.encode()
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.mark.parametrize(("form", "mode"), [(form, mode) for form, modes in MODES.items() for mode in modes])
def test_a_whole_image_is_decoded(form: str, mode: str) -> None:
    _, size = decode(encode(form, mode), VIEW)
    assert size == {"ICO": (32, 32), "ICNS": (1024, 1024)}.get(form, (24, 17))


@fuzzed(300)
@given(damaged(images()))
def test_a_damaged_image_is_pixels_or_a_typed_error(data: bytes) -> None:
    decoded_or_typed(data)


@fuzzed(100)
@given(st.binary(max_size=300))
def test_any_bytes_are_pixels_or_a_typed_error(data: bytes) -> None:
    decoded_or_typed(data)


def exif(orientation: int) -> bytes:
    found = Image.Exif()
    found[0x0112], found[0x010E] = orientation, "a description, long enough to lie outside of its entry"
    return found.tobytes()


def by_pillow_alone(data: bytes) -> np.ndarray | None:
    """Decodes an image by Pillow alone; None if Pillow refuses it."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except Exception:  # noqa: BLE001 - of whatever kind
        return None


@fuzzed(150)
@given(st.sampled_from(WITH_EXIF), st.integers(1, 8), st.data())
def test_damaged_exif_spoils_no_image(form: str, orientation: int, data: st.DataObject) -> None:
    """Replaces valid EXIF in the file by damaged EXIF of the same size."""
    whole = encode(form, "RGB", exif=exif(orientation))
    with Image.open(io.BytesIO(whole)) as image:
        inner = image.info["exif"].removeprefix(b"Exif\0\0")
    broken = data.draw(damaged(st.just(inner)))[: len(inner)].ljust(len(inner), b"\0")
    spoilt = whole.replace(inner, broken)
    _, size = decode(with_sums(spoilt) if form == "PNG" else spoilt, VIEW)
    assert sorted(size) == [17, 24]


METADATA_TAGS = (270, 305, 700, 33723, 34377, 34665, 34675, 34853)  # texts, XMP, IPTC, Photoshop, EXIF, ICC, GPS


@fuzzed(150)
@given(st.sampled_from(METADATA_TAGS), st.binary(min_size=10, max_size=10), st.sampled_from(["raw", "tiff_lzw"]))
def test_no_tag_beside_the_pixels_spoils_a_tiff(tag: int, entry: bytes, compression: str) -> None:
    """Uses tags of any type, number of values and offset."""
    whole = encode("TIFF", "RGB", compression=compression, tiffinfo={270: "x" * 9, 305: "y" * 9})
    (first,) = struct.unpack_from("<I", whole, 4)
    (count,) = struct.unpack_from("<H", whole, first)
    entries = range(first + 2, first + 2 + 12 * count, 12)
    spoilt = bytearray(whole)
    place = next(at for at in entries if struct.unpack_from("<H", whole, at)[0] == 270)
    struct.pack_into("<H10s", spoilt, place, tag, entry)
    _, size = decode(bytes(spoilt), VIEW)
    assert size == (24, 17)


def with_sums(png: bytes) -> bytes:
    """Corrects the checksums of a PNG's chunks."""
    found, position = [png[:8]], 8
    while position < len(png):
        length = struct.unpack(">I", png[position : position + 4])[0]
        chunk = png[position + 4 : position + 8 + length]
        found.append(struct.pack(">I", length) + chunk + struct.pack(">I", zlib.crc32(chunk)))
        position += 12 + length
    return b"".join(found)


CHUNKS = st.sampled_from([b"iCCP", b"zTXt", b"iTXt", b"tEXt", b"gAMA", b"cHRM", b"pHYs", b"sRGB", b"eXIf", b"acTL"])


@fuzzed(150)
@given(CHUNKS, st.binary(max_size=30), st.booleans(), st.booleans())
@example(b"iCCP", b"x\0\5abc", True, True)
@example(b"gAMA", b"", False, True)
def test_no_chunk_beside_the_pixels_spoils_a_png(kind: bytes, body: bytes, is_first: bool, is_summed: bool) -> None:
    whole = encode("PNG", "RGB")
    total = zlib.crc32(kind + body) ^ (not is_summed)
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", total)
    place = 33 if is_first else len(whole) - 12
    pixels, _ = decode(whole[:place] + chunk + whole[place:], Preprocessing(image_size=17, resize_size=17))
    assert np.array_equal(pixels, decode(whole, Preprocessing(image_size=17, resize_size=17))[0]) or kind == b"eXIf"


@fuzzed(150)
@given(st.sampled_from(["ICCP", "XMP ", "EXIF"]), st.binary(max_size=30))
def test_no_chunk_beside_the_pixels_spoils_a_webp(kind: str, body: bytes) -> None:
    names = {"ICCP": "icc_profile", "XMP ": "xmp", "EXIF": "exif"}
    _, size = decode(encode("WEBP", "RGB", **{names[kind]: body}), VIEW)
    assert sorted(size) == [17, 24]


@fuzzed(150)
@given(st.sampled_from(range(1, 16)), st.binary(max_size=60), st.booleans())
def test_no_application_segment_spoils_a_jpeg(number: int, body: bytes, has_name: bool) -> None:
    names = {1: b"Exif\0\0", 2: b"MPF\0", 13: b"Photoshop 3.0\0"}
    body = (names.get(number, b"") if has_name else b"") + body
    assume(number != 14)  # Adobe's is about the colours
    segment = bytes([0xFF, 0xE0 + number]) + struct.pack(">H", len(body) + 2) + body
    whole = encode("JPEG", "RGB")
    _, size = decode(whole[:2] + segment + whole[2:], VIEW)
    assert sorted(size) == [17, 24]


@fuzzed(150)
@given(damaged(images(("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"))))
def test_what_pillow_decodes_is_decoded(data: bytes) -> None:
    found = by_pillow_alone(data)
    assume(found is not None)
    decode(data, VIEW)
