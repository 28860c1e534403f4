"""Which column of a Parquet file holds the images, and which one names the rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa

from pipeline.errors import DataError
from pipeline.schema import ErrorCode

NAMES = ("__key__", "key", "image_id", "id", "file_name", "filename", "path", "url")
"""Columns that may name a row, the first that is there."""
IMAGES = ("image", "jpg", "jpeg", "png", "webp", "bytes", "img", "images", "image_bytes")
"""Columns that are taken for images where there are several; `image` before all others."""
LONGEST_HASH = 64
"""Bytes of values of one size that are no images, but hashes or UUIDs."""
SHOWN = 20


class Kind(StrEnum):
    """How a column holds images."""

    BYTES = "bytes"
    NUMBERS = "numbers"  # a list of the bytes
    TEXT = "text"  # base64, a path or a URL
    STRUCT = "struct"  # Hugging Face's: bytes, path, or both


@dataclass(frozen=True, slots=True)
class Column:
    """A column, or a field of a struct in one."""

    name: str
    """Dotted."""
    path: tuple[int, ...]
    """Index of the column, and of each field in the struct before it."""
    kind: pa.DataType
    """Of its values, without the lists around them."""
    leaves: tuple[int, ...]
    """Indexes of the Parquet columns in which it is stored."""
    in_lists: bool = False
    """Its values are entries of a list, in the column or in a struct above it."""

    def leaves_of(self, field: str) -> tuple[int, ...]:
        """Of a field of a struct; empty where it has none of this name, or is no struct."""
        leaf = self.leaves[0]
        if not pa.types.is_struct(self.kind):
            return ()
        for i in range(self.kind.num_fields):
            below = self.kind.field(i)
            if below.name == field:
                return tuple(range(leaf, leaf + _num_leaves(below.type)))
            leaf += _num_leaves(below.type)
        return ()

    @property
    def holds(self) -> Kind | None:
        """How it holds images; None if it cannot."""
        return _kind_of(self.kind)


def columns(schema: pa.Schema) -> Iterator[Column]:
    """All columns, and the fields of structs after the struct itself, in the order of the file."""
    leaf = 0
    for i, field in enumerate(schema):
        yield from _columns_of(field, field.name, (i,), leaf, in_lists=False)
        leaf += _num_leaves(field.type)


def _columns_of(field: pa.Field, name: str, path: tuple[int, ...], leaf: int, *, in_lists: bool) -> Iterator[Column]:
    kind = plain(field.type)
    while _is_list(kind) and _kind_of(kind) is None:
        kind, in_lists = plain(kind.value_type), True
    if pa.types.is_map(kind):  # is stored as a list of structs
        kind, in_lists = pa.struct([kind.key_field.with_name("key"), kind.item_field.with_name("value")]), True
    yield Column(name, path, kind, tuple(range(leaf, leaf + _num_leaves(kind))), in_lists)
    if pa.types.is_struct(kind):
        for i in range(kind.num_fields):
            below = kind.field(i)
            yield from _columns_of(below, f"{name}.{below.name}", (*path, i), leaf, in_lists=in_lists)
            leaf += _num_leaves(below.type)


def image_column(schema: pa.Schema, named: str, key: str = "") -> Column:
    """The column of images. Raises DataError where there is none, or more than one that it could be.

    Args:
        named: the one to take; empty finds it by kind and name.
        key: the column that names the rows, which is not taken for images.
    """
    found = list(columns(schema))
    if named:
        column = _named(found, named, "image_column")
        if column.holds is not None:
            return column
        inside = [one for one in found if one.name.startswith(f"{named}.") and one.holds]
        chosen = _candidates(inside, set())
        if len(chosen) != 1:
            told = _choice(chosen or inside, "image_column") if inside else ""
            raise DataError(ErrorCode.NO_IMAGE, f"the column {named} is of {column.kind}, which holds no images{told}")
        return chosen[0]
    candidates = _candidates(found, {*NAMES, key})
    chosen = [one for one in candidates if one.name == IMAGES[0]] or [one for one in candidates if one.name in IMAGES]
    chosen = chosen or candidates
    if len(chosen) == 1:
        return chosen[0]
    if not chosen:
        texts = ", ".join(one.name for one in found if one.holds == Kind.TEXT)
        told = f"; --image_column takes one of paths, URLs or base64 text: {texts}" if texts else ""
        kinds = ", ".join(f"{one.name} ({one.kind})" for one in found[:SHOWN]) or "none: the file has no columns"
        raise DataError(ErrorCode.NO_IMAGE, f"there is no column of images{told or f' among {kinds}'}")
    raise DataError(ErrorCode.NO_IMAGE, f"several columns could be the images{_choice(chosen, 'image_column')}")


def key_column(schema: pa.Schema, named: str, image: Column) -> Column | None:
    """The column that names the rows; None where there is none. Raises DataError for one that is not there."""
    found = list(columns(schema))
    if named:
        return _named(found, named, "key_column")
    found = [one for one in found if one.path[: len(image.path)] != image.path]
    by_name = {one.name: one for one in found if len(one.path) == 1 and not one.in_lists}
    return next((by_name[name] for name in NAMES if name in by_name), None)


def has_column(schema: pa.Schema, named: str, key: str) -> bool:
    """Whether a file has a column of images, or several."""
    found = list(columns(schema))
    return any(one.name == named for one in found) if named else bool(_candidates(found, {*NAMES, key}))


def top_level(schema: pa.Schema, names: Collection[str], image: Column) -> list[Column]:
    """Those of the columns of these names that are there and are not the images', each name once."""
    found = {one.name: one for one in columns(schema) if len(one.path) == 1 and one.path[0] != image.path[0]}
    return [found[name] for name in sorted(names) if name in found]


def _candidates(found: list[Column], names: Collection[str]) -> list[Column]:
    """Columns that hold images by their kind; where none does, lists of bytes and text that are called an image."""
    outer: list[Column] = []
    for one in found:
        is_inside = any(one.path[: len(above.path)] == above.path for above in outer)
        if not is_inside and one.name not in names and one.holds in (Kind.BYTES, Kind.STRUCT) and not _is_hash(one):
            outer.append(one)
    if outer:
        return outer
    others = [one for one in found if one.holds in (Kind.NUMBERS, Kind.TEXT) and one.name not in names]
    called = [one for one in others if one.name.rpartition(".")[2] in IMAGES]
    return called or [one for one in others if one.holds == Kind.NUMBERS and _is_bytes(one.kind) and not one.in_lists]


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


def _kind_of(kind: pa.DataType) -> Kind | None:
    kind = plain(kind)
    if _is_binary(kind):
        return Kind.BYTES
    if is_text(kind):
        return Kind.TEXT
    if _is_list(kind) and pa.types.is_integer(plain(kind.value_type)):
        return Kind.NUMBERS
    if pa.types.is_struct(kind):
        inner = {kind.field(i).name: plain(kind.field(i).type) for i in range(kind.num_fields)}
        has_bytes = "bytes" in inner and _kind_of(inner["bytes"]) in (Kind.BYTES, Kind.NUMBERS, Kind.TEXT)
        return Kind.STRUCT if has_bytes or ("path" in inner and is_text(inner["path"])) else None
    return None


def plain(kind: pa.DataType) -> pa.DataType:
    """A type without what only says how it is stored: dictionaries and extensions."""
    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
            kind = kind.value_type
        else:
            return kind


def is_text(kind: pa.DataType) -> bool:
    """Whether values are strings of any form."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    checks = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(check(kind) for check in checks) and not pa.types.is_decimal(kind)


def _is_hash(column: Column) -> bool:
    return bool(pa.types.is_fixed_size_binary(column.kind) and column.kind.byte_width <= LONGEST_HASH)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(plain(kind.value_type) in (pa.uint8(), pa.int8()))


def _is_list(kind: pa.DataType) -> bool:
    checks = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    views = (pa.types.is_list_view, pa.types.is_large_list_view)
    return any(check(kind) for check in (*checks, *views))


def _num_leaves(kind: pa.DataType) -> int:
    kind = plain(kind)
    if pa.types.is_struct(kind):
        return sum(_num_leaves(kind.field(i).type) for i in range(kind.num_fields))
    if pa.types.is_map(kind):
        return _num_leaves(kind.key_type) + _num_leaves(kind.item_type)
    return _num_leaves(kind.value_type) if _is_list(kind) else 1
