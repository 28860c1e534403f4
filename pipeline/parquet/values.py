"""Converts values of a Parquet file to encoded images, paths, image_ids and text.

Values are read from Arrow buffers instead of being converted to Python, which fails for invalid UTF-8 and far dates.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipeline.errors import DataError
from pipeline.parquet.columns import is_text, storage_type
from pipeline.schema import ErrorCode

Image = bytes | str | DataError | None
"""Encoded bytes, a path or URL, or an error; None for null."""
MAX_PATH_LENGTH = 4096
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]+={0,2}\s*")
_SIGNATURES = (
    b"\xff\xd8\xff",
    b"\x89PNG",
    b"GIF8",
    b"RIFF",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"\xff\x0a",
    b"\0\0\0",
    b"<svg",
)
"""First bytes of images, which distinguish base64 from a path made of the same letters."""


def extract_images(value: pa.Scalar, path: Sequence[int]) -> list[Image]:
    """Returns the images of a value, those of a list one by one; a null or empty list gives one None.

    Args:
        value: a value of the column of images.
        path: index of the field in each nested struct.
    """
    value = _inner(value)
    if value is None:
        return [None]
    if pa.types.is_struct(value.type) and path:
        return extract_images(value[path[0]], path[1:])
    if _is_nested(value):
        return [image for entry in value.values for image in extract_images(entry, path)] or [None]
    return [_image(value)]


def key_text(value: pa.Scalar | None) -> str | None:
    """Converts a name to text, with bytes that are not UTF-8 in hexadecimal; returns None for null."""
    value = None if value is None else _inner(value)
    if value is None:
        return None
    if is_text(value.type):
        return _raw(value).decode("utf-8", "backslashreplace")
    if isinstance(value, pa.BinaryScalar):
        raw = _raw(value)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return raw.hex()
    return _as_text(value)


def sibling_text(value: pa.Scalar) -> bytes | None:
    """Converts a value to the contents of a sibling file, nested values as JSON; returns None for null."""
    inner = _inner(value)
    if inner is None:
        return None
    if is_text(inner.type) or isinstance(inner, pa.BinaryScalar):
        return _raw(inner)
    try:
        return json.dumps(inner.as_py(), default=str).encode()
    except Exception:  # noqa: BLE001 - pyarrow on foreign values, e.g. nested text that is not UTF-8
        return json.dumps(_as_text(inner)).encode()


def _as_text(value: pa.Scalar) -> str:
    try:
        if pa.types.is_temporal(value.type):
            return str(value.cast(pa.string()).as_py())
        found = value.as_py()
        return json.dumps(found, default=str) if isinstance(found, (dict, list)) else str(found)
    except Exception as error:  # noqa: BLE001 - as above, e.g. dates beyond Python's range
        return f"{value.type} that cannot be shown: {type(error).__name__}"


def _image(value: pa.Scalar) -> Image:
    if pa.types.is_struct(value.type):
        inner = {value.type.field(i).name: i for i in range(value.type.num_fields)}
        data = extract_images(value[inner["bytes"]], ())[0] if "bytes" in inner else None
        return data if data is not None or "path" not in inner else _location(value[inner["path"]])
    if is_text(value.type):
        return _from_text(_raw(value))
    if isinstance(value, pa.BinaryScalar):
        return _from_bytes(_raw(value))
    return _from_numbers(value.values)


def _location(value: pa.Scalar) -> str | None:
    found = _inner(value)
    return (_raw(found).decode("utf-8", "surrogateescape") or None) if isinstance(found, pa.BinaryScalar) else None


def _from_numbers(values: pa.Array) -> Image:
    try:
        return bytes(values.cast(pa.int64()).to_numpy(zero_copy_only=False).astype("uint8").tobytes())
    except (pa.ArrowException, ValueError, TypeError) as error:
        return DataError(ErrorCode.NO_IMAGE, f"a list of numbers that are not bytes: {error}")


def _from_bytes(raw: bytes) -> bytes:
    """Returns encoded bytes unchanged; decodes base64 stored as bytes, with or without `data:…,` before it."""
    is_text = raw.startswith(b"data:") or (_decoded(raw[:8].decode("latin-1")) or b"").startswith(_SIGNATURES)
    found = _from_text(raw) if is_text else raw
    return found if isinstance(found, bytes) else raw


def _from_text(raw: bytes) -> Image:
    """Decodes base64, with or without a `data:…,` prefix; returns other text as a path or URL."""
    text = raw.decode("utf-8", "surrogateescape")
    if not text:
        return None
    if text.startswith("data:"):
        header, _, text = text.partition(",")
        if not header.endswith(";base64"):
            return DataError(ErrorCode.NO_IMAGE, "a data: URL that is not base64")
        return _decoded(text) or DataError(ErrorCode.NO_IMAGE, "a data: URL whose base64 is damaged")
    data = _decoded(text) if _BASE64.fullmatch(text) else None
    if data and (len(text) > MAX_PATH_LENGTH or data.startswith(_SIGNATURES)):
        return data
    if len(text) > MAX_PATH_LENGTH:
        return DataError(ErrorCode.NO_IMAGE, f"a text of {len(text):,} characters: neither base64 nor a path")
    return text


def _decoded(text: str) -> bytes | None:
    compact = re.sub(r"\s", "", text).translate(str.maketrans("-_", "+/")).rstrip("=")
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except ValueError:  # of what is no base64, or not even ASCII
        return None


def _inner(value: pa.Scalar) -> Any:
    """Returns the value below dictionaries, run-ends and extensions; None for null."""
    while value is not None and value.is_valid:
        if not isinstance(value, (pa.DictionaryScalar, pa.ExtensionScalar, pa.RunEndEncodedScalar)):
            return value
        value = value.value
    return None


def _is_nested(value: pa.Scalar) -> bool:
    """Returns whether a value is a list of values rather than of an image's bytes."""
    return isinstance(value, pa.ListScalar) and not pa.types.is_integer(storage_type(value.type.value_type))


def _raw(value: pa.Scalar) -> bytes:
    buffer = value.as_buffer()
    return bytes(buffer.to_pybytes()) if buffer is not None else b""
