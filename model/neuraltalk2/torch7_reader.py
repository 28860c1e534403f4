"""Reads files that Torch7's `torch.save` wrote: binary or ASCII, with longs of 8 or 4 bytes, from CPU or GPU.

nil, booleans, numbers and strings become None, bool, float and str; tables and objects become `LuaTable`; tensors and
storages become NumPy arrays, which share memory if they share a storage in the file; functions become `LuaFunction`,
whose code is skipped: nothing in the file is executed. Files are untrusted: every size is checked against the remaining
bytes before memory is allocated, and nesting and the number of values are bounded, so that a damaged file raises
CheckpointError early.

The format is that of torch7's File.lua, lib/TH/THDiskFile.c and generic/{Tensor,Storage}.c.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from pathlib import Path
from types import GeneratorType
from typing import Any, cast

import numpy as np
from numpy.lib.stride_tricks import as_strided

from model.errors import CheckpointError
from model.neuraltalk2.torch7_streams import AsciiStream, BinaryStream, DamagedError, Stream
from model.neuraltalk2.torch7_values import Array, LuaFunction, LuaTable, Value

NIL, NUMBER, STRING, TABLE, OBJECT, BOOLEAN, FUNCTION, OLD_CLOSURE, CLOSURE = range(9)

MAX_DEPTH = 10_000
"""Maximum nesting of tables; a node of nngraph takes four levels."""
MAX_VALUES = 2_000_000
"""Maximum number of values in a file, of up to 450 bytes each; neuraltalk2's largest have some hundred thousand."""
MAX_DIMENSIONS = 64  # NumPy's limit
MAX_EXPANDED = 1 << 32
"""Maximum number of elements of a tensor that is larger than its storage, which strides of 0 repeat."""

_ELEMENTS = {"Byte": "u1", "Char": "i1", "Short": "i2", "Int": "i4", "Long": "i8"}
_ELEMENTS |= {"Half": "f2", "Float": "f4", "Double": "f8"}
_ELEMENTS |= {f"Cuda{'' if name == 'Float' else name}": kind for name, kind in _ELEMENTS.items()}
_TENSORS = {f"torch.{name}Tensor": np.dtype(f"<{kind}") for name, kind in _ELEMENTS.items()}
_STORAGES = {f"torch.{name}Storage": np.dtype(f"<{kind}") for name, kind in _ELEMENTS.items()}

_Unfinished = Generator[None, Value, Value]  # is sent the values it contains, returns itself


def read(path: Path) -> Value:
    """Reads the object in a file.

    Raises CheckpointError, naming the offset in bytes, for a file that is damaged, truncated or no Torch7 file.
    """
    try:
        with path.open("rb") as file:
            beginning = file.peek(4)
            if beginning.startswith(b"PK"):
                raise DamagedError(0, "a zip file begins; unpack it and give what is in it")
            if beginning[:1].isdigit():
                return _Reader(AsciiStream(file)).read_object()
            stream = BinaryStream(file, long_bytes=8)
            try:
                return _Reader(stream).read_object()
            except DamagedError as error:
                if not stream.has_longs:
                    raise
                first = error
            file.seek(0)
            try:  # as written on Windows or by 32-bit processors; the file does not say which
                return _Reader(BinaryStream(file, long_bytes=4)).read_object()
            except DamagedError as second:
                raise max(first, second, key=lambda error: error.offset) from None
    except DamagedError as error:
        raise CheckpointError(f"{path} is no Torch7 file, or damaged: at byte {error.offset}, {error}") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error


class _Reader:
    """Reads one object from a stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._by_index: dict[int, tuple[int, Value]] = {}  # tag and value
        self._storages: dict[int, Array] = {}
        self._values = 0
        self._inline: dict[int, Callable[[], Value | _Unfinished]] = {
            NIL: lambda: None,
            NUMBER: stream.number,
            STRING: self._string,
            BOOLEAN: self._boolean,
            FUNCTION: lambda: self._function(LuaFunction()),
        }

    def read_object(self) -> Value:
        """Reads the only object of the stream, without recursion since the file determines the nesting."""
        stack: list[_Unfinished] = []
        while True:
            begun = self._begin()
            if isinstance(begun, GeneratorType):
                stack.append(begun)
                if len(stack) > MAX_DEPTH:
                    self._stream.fail(f"tables are nested deeper than {MAX_DEPTH}")
                begun = None  # sending None starts the generator
            value = cast(Value, begun)
            while stack:
                try:
                    stack[-1].send(value)
                    break  # it expects another value
                except StopIteration as finished:
                    value = finished.value
                    stack.pop()
            else:
                if left := self._stream.left:
                    self._stream.fail(f"{left} bytes follow the end of the object")
                return value

    def _begin(self) -> Value | _Unfinished:
        """Begins the next value; returns it, or a generator that must be sent the values it contains."""
        self._values += 1
        if self._values > MAX_VALUES:
            self._stream.fail(f"there are more than {MAX_VALUES} values")
        tag = self._stream.integer()
        if tag in (TABLE, OBJECT, OLD_CLOSURE, CLOSURE):
            index = self._stream.integer()
            return self._existing(tag, index) if index in self._by_index else self._new(tag, index)
        if tag not in self._inline:
            self._stream.fail(f"{tag} is no type of value")
        return self._inline[tag]()

    def _existing(self, tag: int, index: int) -> Value:
        stored, value = self._by_index[index]
        if stored != tag:
            self._stream.fail(f"object {index} is of type {stored} and referred to as of type {tag}")
        return value

    def _new(self, tag: int, index: int) -> Value | _Unfinished:
        """Reads the value that follows a new index."""
        if tag in (OLD_CLOSURE, CLOSURE):
            function = LuaFunction()
            self._by_index[index] = tag, function
            return self._function(function)
        if tag == TABLE:
            table = LuaTable()
            self._by_index[index] = tag, table
            return self._fill(table)
        class_name = self._class_name()
        if class_name in _TENSORS:
            value: Value = self._tensor(_TENSORS[class_name])
        elif class_name in _STORAGES:
            value = self._storages[index] = self._storage(_STORAGES[class_name])
        elif class_name.startswith("torch."):
            self._stream.fail(f"class {class_name!r} is not known")
        else:
            record = LuaTable(class_name)
            self._by_index[index] = tag, record
            return self._record(record)
        self._by_index[index] = tag, value
        return value

    def _fill(self, table: LuaTable) -> _Unfinished:
        """Fills a table; is sent its keys and values alternately."""
        for _ in range(self._stream.count(least_bytes=2)):
            key = yield
            value = yield
            if isinstance(key, str):
                table.fields[key] = value
            elif isinstance(key, float) and not math.isnan(key):
                table.items[key] = value
            elif key is None or isinstance(key, float):
                self._stream.fail(f"{key} is the key of a table")
            else:
                table.others.append((key, value))
        return table

    def _record(self, record: LuaTable) -> _Unfinished:
        """Fills an object; is sent the table of its fields."""
        content = yield
        if not isinstance(content, LuaTable) or content.class_name:
            self._stream.fail(f"{record.class_name!r} holds no table")
        record.fields, record.items, record.others = content.fields, content.items, content.others
        return record

    def _function(self, function: LuaFunction) -> _Unfinished:
        """Skips a function's code; is sent its upvalues, to which other values may refer."""
        self._stream.skip(self._stream.count(least_bytes=1))
        yield
        return function

    def _boolean(self) -> bool:
        if (value := self._stream.integer()) not in (0, 1):
            self._stream.fail(f"{value} is no boolean")
        return value == 1

    def _string(self) -> str:
        return self._stream.characters(self._stream.count(least_bytes=1)).decode(errors="surrogateescape")

    def _class_name(self) -> str:
        version = self._string()
        return self._string() if version.startswith("V ") else version  # the oldest files have no version

    def _storage(self, kind: np.dtype[Any]) -> Array:
        return self._stream.array(kind, self._stream.longs(1)[0])

    def _tensor(self, kind: np.dtype[Any]) -> Array:
        dimensions = self._stream.integer()
        if not 0 <= dimensions <= MAX_DIMENSIONS:
            self._stream.fail(f"a tensor has {dimensions} dimensions")
        sizes, strides = self._stream.longs(dimensions), self._stream.longs(dimensions)
        offset = self._stream.longs(1)[0] - 1  # of the first element; Lua counts from 1
        storage = self._storage_of_tensor(kind)
        if dimensions == 0:
            return np.empty(0, kind)
        if min(*sizes, *strides, offset) < 0:
            self._stream.fail(f"a tensor of sizes {sizes} has strides {strides} from {offset}")
        elements = math.prod(sizes)
        if elements == 0:
            return np.empty(sizes, kind)
        end = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
        if end >= len(storage) or elements > max(len(storage), MAX_EXPANDED):
            self._stream.fail(f"a tensor of sizes {sizes} is beyond its storage of {len(storage)} elements")
        return as_strided(storage[offset:], sizes, [stride * kind.itemsize for stride in strides])

    def _storage_of_tensor(self, kind: np.dtype[Any]) -> Array:
        """Reads the storage that follows a tensor's sizes: a new one, a reference to an earlier one, or nil."""
        tag = self._stream.integer()
        if tag == NIL:
            return np.empty(0, kind)
        if tag != OBJECT:
            self._stream.fail(f"a tensor's storage is of type {tag}")
        index = self._stream.integer()
        if index not in self._by_index:
            class_name = self._class_name()
            if class_name not in _STORAGES:
                self._stream.fail(f"a tensor's storage is of class {class_name!r}")
            self._storages[index] = self._storage(_STORAGES[class_name])
            self._by_index[index] = tag, self._storages[index]
        storage = self._storages.get(index)
        if storage is None or storage.dtype != kind:
            self._stream.fail(f"object {index} is no storage of this tensor's elements")
        return storage
