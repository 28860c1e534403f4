"""Writes Torch7 files as `torch.save` does, and invalid ones."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FIXTURES = Path(__file__).parent / "fixtures" / "neuraltalk2"
CHECKPOINTS = FIXTURES / "checkpoints"

NAMES = {
    "u1": "Byte",
    "i1": "Char",
    "i2": "Short",
    "i4": "Int",
    "i8": "Long",
    "f2": "Half",
    "f4": "Float",
    "f8": "Double",
}


class Obj:
    """An object of a Torch class."""

    def __init__(self, class_name: str, fields: Mapping[Any, Any], *, version: str = "V 1") -> None:
        self.class_name = class_name
        self.fields = dict(fields)
        self.version = version


class Code:
    """A Lua function."""

    def __init__(self, code: bytes, upvalues: Any = None, tag: int = 8) -> None:
        self.code, self.upvalues, self.tag = code, upvalues, tag


class Storage:
    """A storage of its own, such as nn.View's `size`."""

    def __init__(self, values: Sequence[int]) -> None:
        self.values = np.array(values, "<i8")


class Tensor:
    """A view of the 1-D array `storage`; `offset` counts from 0, sizes and strides from the array's elements."""

    def __init__(
        self,
        storage: np.ndarray | None,
        sizes: Sequence[int],
        strides: Sequence[int],
        offset: int = 0,
        prefix: str = "",
    ) -> None:
        self.storage, self.sizes, self.strides, self.offset, self.prefix = storage, sizes, strides, offset, prefix


class _Writer:
    def __init__(self, *, text: bool, long_bytes: int) -> None:
        self.text, self.long = text, np.dtype(f"<i{long_bytes}")
        self.out = bytearray()
        self.indices: dict[int, int] = {}
        self.kept: list[object] = []  # so that no id is used twice
        self.tensors: dict[int, Tensor] = {}

    def integer(self, value: int) -> None:
        self.out += b"%d\n" % value if self.text else struct.pack("<i", value)

    def number(self, value: float) -> None:
        self.out += b"%.17g\n" % value if self.text else struct.pack("<d", value)

    def array(self, values: np.ndarray) -> None:
        if not self.text:
            self.out += values.astype(self.long if values.dtype == np.int64 else values.dtype).tobytes()
        elif values.dtype.itemsize == 1:
            self.out += values.tobytes() + (b"\n" if len(values) else b"")
        elif len(values):
            form = "%d" if values.dtype.kind == "i" else "%.17g" if values.dtype == np.float64 else "%.9g"
            self.out += (" ".join(form % value for value in values) + "\n").encode()

    def longs(self, values: Sequence[int]) -> None:
        self.array(np.array(values, np.int64))

    def string(self, value: str | bytes) -> None:
        data = value.encode() if isinstance(value, str) else value
        self.integer(len(data))
        self.out += data + (b"\n" if self.text and data else b"")

    def is_new(self, tag: int, value: object) -> bool:
        self.integer(tag)
        new = id(value) not in self.indices
        self.kept.append(value)
        self.integer(self.indices.setdefault(id(value), len(self.indices) + 1))
        return new

    def begin_object(self, value: object, class_name: str, version: str = "V 1") -> bool:
        if not self.is_new(4, value):
            return False
        if version:
            self.string(version)
        self.string(class_name)
        return True

    def write(self, value: Any) -> None:  # noqa: PLR0912
        if value is None:
            self.integer(0)
        elif isinstance(value, bool):
            self.integer(5)
            self.integer(value)
        elif isinstance(value, int | float):
            self.integer(1)
            self.number(value)
        elif isinstance(value, str | bytes):
            self.integer(2)
            self.string(value)
        elif isinstance(value, Mapping):
            if self.is_new(3, value):
                self.table(value)
        elif isinstance(value, Obj):
            if self.begin_object(value, value.class_name, value.version):
                self.integer(3)
                self.kept.append(fields := dict(value.fields))
                self.integer(self.indices.setdefault(id(fields), len(self.indices) + 1))
                self.table(fields)
        elif isinstance(value, Code):
            if value.tag == 6:
                self.integer(6)
            elif not self.is_new(value.tag, value):
                return
            self.string(value.code)
            self.write(value.upvalues)
        elif isinstance(value, Storage):
            if self.begin_object(value, "torch.LongStorage"):
                self.longs([len(value.values)])
                self.array(value.values)
        elif isinstance(value, Tensor):
            self.tensor(value)
        else:
            flat = np.ascontiguousarray(value).reshape(-1)
            strides = [int(np.prod(value.shape[i + 1 :])) for i in range(value.ndim)]
            self.kept.append(value)
            self.tensor(self.tensors.setdefault(id(value), Tensor(flat, value.shape, strides)))

    def table(self, fields: Mapping[Any, Any]) -> None:
        self.integer(len(fields))
        for key, item in fields.items():
            self.write(key)
            self.write(item)

    def tensor(self, value: Tensor) -> None:
        kind = "f4" if value.storage is None else value.storage.dtype.str[1:]
        name = value.prefix + ("" if value.prefix and kind == "f4" else NAMES[kind])
        if not self.begin_object(value, f"torch.{name}Tensor"):
            return
        self.integer(len(value.sizes))
        self.longs(value.sizes)
        self.longs(value.strides)
        self.longs([value.offset + 1])
        if value.storage is None:
            self.integer(0)
        elif self.begin_object(value.storage, f"torch.{name}Storage"):
            self.longs([len(value.storage)])
            self.array(value.storage)


def dumps(value: Any, *, text: bool = False, long_bytes: int = 8) -> bytes:
    """Encodes a file: dicts are tables, arrays tensors, `Mapping`s of the same identity the same table."""
    writer = _Writer(text=text, long_bytes=long_bytes)
    writer.write(value)
    return bytes(writer.out)
