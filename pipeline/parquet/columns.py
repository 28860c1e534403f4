"""Finds the column of a Parquet file that holds the images, and the one that holds the image_id."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa

from pipeline.errors import DataError
from pipeline.schema import ErrorCode

KEY_COLUMNS = ("__key__", "key", "image_id", "id", "file_name", "filename", "path", "url")
"""Columns that may hold the image_id; the first existing one is used."""
IMAGE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp", "bytes", "img", "images", "image_bytes")
"""Column names that decide if several columns could hold images; `image` comes before all others."""
MAX_HASH_BYTES = 64
"""Maximum width in bytes of fixed-size values that count as hashes or UUIDs rather than images."""
SHOWN = 20


class ImageKind(StrEnum):
    """The way in which a column holds images."""

    BYTES = "bytes"
    NUMBERS = "numbers"  # a list of the bytes
    TEXT = "text"  # base64, a path or a URL
    STRUCT = "struct"  # Hugging Face's: bytes, path, or both


@dataclass(frozen=True, slots=True)
class Column:
    """A column, or a field of a struct column."""

    name: str
    """Name, dotted for fields of structs."""
    path: tuple[int, ...]
    """Index of the column, then of the field in each nested struct."""
    dtype: pa.DataType
    """Type of its values, without surrounding lists."""
    leaves: tuple[int, ...]
    """Indices of the Parquet leaf columns that store it."""
    in_lists: bool = False
    """True if its values are entries of a list, in the column itself or in a surrounding struct."""

    def leaves_of(self, field: str) -> tuple[int, ...]:
        """Returns the leaf columns of a field of the struct; empty if there is no such field or it is not a struct."""
        leaf = self.leaves[0]
        if not pa.types.is_struct(self.dtype):
            return ()
        for i in range(self.dtype.num_fields):
            below = self.dtype.field(i)
            if below.name == field:
                return tuple(range(leaf, leaf + _num_leaves(below.type)))
            leaf += _num_leaves(below.type)
        return ()

    @property
    def image_kind(self) -> ImageKind | None:
        """The way in which it holds images; None if its type cannot."""
        return _image_kind(self.dtype)


def columns(schema: pa.Schema) -> Iterator[Column]:
    """Yields all columns in the order of the file, each struct before its fields."""
    leaf = 0
    for i, field in enumerate(schema):
        yield from _columns_of(field, field.name, (i,), leaf, in_lists=False)
        leaf += _num_leaves(field.type)


def _columns_of(field: pa.Field, name: str, path: tuple[int, ...], leaf: int, *, in_lists: bool) -> Iterator[Column]:
    kind = storage_type(field.type)
    while _is_list(kind) and _image_kind(kind) is None:
        kind, in_lists = storage_type(kind.value_type), True
    if pa.types.is_map(kind):  # is stored as a list of structs
        kind, in_lists = pa.struct([kind.key_field.with_name("key"), kind.item_field.with_name("value")]), True
    yield Column(name, path, kind, tuple(range(leaf, leaf + _num_leaves(kind))), in_lists)
    if pa.types.is_struct(kind):
        for i in range(kind.num_fields):
            below = kind.field(i)
            yield from _columns_of(below, f"{name}.{below.name}", (*path, i), leaf, in_lists=in_lists)
            leaf += _num_leaves(below.type)


def find_image_column(schema: pa.Schema, named: str, key: str = "") -> Column:
    """Returns the column of images. Raises DataError if there is none or it is ambiguous.

    Args:
        named: name of the column to use; empty finds it by type and name.
        key: name of the column that holds the image_id, which is not a candidate.
    """
    found = list(columns(schema))
    if named:
        column = _named(found, named, "image_column")
        if column.image_kind is not None:
            return column
        inside = [one for one in found if one.name.startswith(f"{named}.") and one.image_kind]
        chosen = _candidates(inside, set())
        if len(chosen) != 1:
            hint = _choice(chosen or inside, "image_column") if inside else ""
            raise DataError(ErrorCode.NO_IMAGE, f"the column {named} is of {column.dtype}, which holds no images{hint}")
        return chosen[0]
    candidates = _candidates(found, {*KEY_COLUMNS, key})
    chosen = [one for one in candidates if one.name == IMAGE_COLUMNS[0]] or [
        one for one in candidates if one.name in IMAGE_COLUMNS
    ]
    chosen = chosen or candidates
    if len(chosen) == 1:
        return chosen[0]
    if not chosen:
        texts = ", ".join(one.name for one in found if one.image_kind == ImageKind.TEXT)
        hint = f"; --image_column takes one of paths, URLs or base64 text: {texts}" if texts else ""
        kinds = ", ".join(f"{one.name} ({one.dtype})" for one in found[:SHOWN]) or "none: the file has no columns"
        raise DataError(ErrorCode.NO_IMAGE, f"there is no column of images{hint or f' among {kinds}'}")
    raise DataError(ErrorCode.NO_IMAGE, f"several columns could be the images{_choice(chosen, 'image_column')}")


def find_key_column(schema: pa.Schema, named: str, image: Column) -> Column | None:
    """Returns the column that holds the image_id, or None. Raises DataError if the `named` one does not exist."""
    found = list(columns(schema))
    if named:
        return _named(found, named, "key_column")
    found = [one for one in found if one.path[: len(image.path)] != image.path]
    by_name = {one.name: one for one in found if len(one.path) == 1 and not one.in_lists}
    return next((by_name[name] for name in KEY_COLUMNS if name in by_name), None)


def has_image_column(schema: pa.Schema, named: str, key: str) -> bool:
    """Returns whether a file has at least one column that can hold images."""
    found = list(columns(schema))
    return any(one.name == named for one in found) if named else bool(_candidates(found, {*KEY_COLUMNS, key}))


def sibling_columns(schema: pa.Schema, names: Collection[str], image: Column) -> list[Column]:
    """Returns the existing top-level columns with these names, each name once, without the column of images."""
    found = {one.name: one for one in columns(schema) if len(one.path) == 1 and one.path[0] != image.path[0]}
    return [found[name] for name in sorted(names) if name in found]


def _candidates(found: list[Column], names: Collection[str]) -> list[Column]:
    """Returns columns that hold images by their type, or else lists of bytes and text whose name says image."""
    outer: list[Column] = []
    for one in found:
        is_inside = any(one.path[: len(above.path)] == above.path for above in outer)
        if (
            not is_inside
            and one.name not in names
            and one.image_kind in (ImageKind.BYTES, ImageKind.STRUCT)
            and not _is_hash(one)
        ):
            outer.append(one)
    if outer:
        return outer
    others = [one for one in found if one.image_kind in (ImageKind.NUMBERS, ImageKind.TEXT) and one.name not in names]
    called = [one for one in others if one.name.rpartition(".")[2] in IMAGE_COLUMNS]
    return called or [
        one for one in others if one.image_kind == ImageKind.NUMBERS and _is_bytes(one.dtype) and not one.in_lists
    ]


def _named(found: list[Column], name: str, option: str) -> Column:
    chosen = [one for one in found if one.name == name]
    if not chosen:
        raise DataError(ErrorCode.NO_IMAGE, f"{option} is {name}, and there is no such column{_among(found)}")
    if len(chosen) > 1:
        raise DataError(ErrorCode.NO_IMAGE, f"{len(chosen)} columns are called {name}; write the file with two names")
    return chosen[0]


def _among(found: list[Column]) -> str:
    names = [one.name for one in found]
    more = ", …" if len(names) > SHOWN else ""
    return f" among {', '.join(names[:SHOWN])}{more}" if names else ": the file has no columns"


def _choice(chosen: list[Column], option: str) -> str:
    names = list(dict.fromkeys(one.name for one in chosen))
    if len(names) < len(chosen):
        return (
            f": {len(chosen)} columns, of which some have one name, {', '.join(names)}; write the file with other names"
        )
    return f"; --{option} takes one of {', '.join(names)}"


def _image_kind(kind: pa.DataType) -> ImageKind | None:
    kind = storage_type(kind)
    if _is_binary(kind):
        return ImageKind.BYTES
    if is_text(kind):
        return ImageKind.TEXT
    if _is_list(kind) and pa.types.is_integer(storage_type(kind.value_type)):
        return ImageKind.NUMBERS
    if pa.types.is_struct(kind):
        inner = {kind.field(i).name: storage_type(kind.field(i).type) for i in range(kind.num_fields)}
        has_bytes = "bytes" in inner and _image_kind(inner["bytes"]) in (
            ImageKind.BYTES,
            ImageKind.NUMBERS,
            ImageKind.TEXT,
        )
        return ImageKind.STRUCT if has_bytes or ("path" in inner and is_text(inner["path"])) else None
    return None


def storage_type(kind: pa.DataType) -> pa.DataType:
    """Returns the type of the values below dictionary, run-end and extension types."""
    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
            kind = kind.value_type
        else:
            return kind


def is_text(kind: pa.DataType) -> bool:
    """Returns whether a type is one of Arrow's string types."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    checks = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(check(kind) for check in checks) and not pa.types.is_decimal(kind)


def _is_hash(column: Column) -> bool:
    return bool(pa.types.is_fixed_size_binary(column.dtype) and column.dtype.byte_width <= MAX_HASH_BYTES)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(storage_type(kind.value_type) in (pa.uint8(), pa.int8()))


def _is_list(kind: pa.DataType) -> bool:
    checks = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    views = (pa.types.is_list_view, pa.types.is_large_list_view)
    return any(check(kind) for check in (*checks, *views))


def _num_leaves(kind: pa.DataType) -> int:
    kind = storage_type(kind)
    if pa.types.is_struct(kind):
        return sum(_num_leaves(kind.field(i).type) for i in range(kind.num_fields))
    if pa.types.is_map(kind):
        return _num_leaves(kind.key_type) + _num_leaves(kind.item_type)
    return _num_leaves(kind.value_type) if _is_list(kind) else 1
