"""Values in Torch7 files that have no Python equivalent."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]


class LuaTable:
    """A Lua table, or an object and its class. Compares by identity; may contain itself.

    Args:
        class_name: class of an object, such as "nn.Linear"; empty for a table.
    """

    __slots__ = ("class_name", "fields", "items", "others")

    def __init__(self, class_name: str = "") -> None:
        self.class_name = class_name
        self.fields: dict[str, Value] = {}
        """Values with string keys."""
        self.items: dict[float, Value] = {}
        """Values with number keys; 1 and 1.0 are the same key."""
        self.others: list[tuple[Value, Value]] = []
        """(key, value) pairs with other keys: booleans, tables, …"""

    def __repr__(self) -> str:
        return f"<{self.class_name or 'table'} of {len(self.fields) + len(self.items) + len(self.others)}>"

    def get(self, name: str) -> Value:
        """Returns the value of a string key, or None."""
        return self.fields.get(name)

    def sequence(self) -> list[Value]:
        """Returns the values of keys 1, 2, 3, … up to the first missing one."""
        values: list[Value] = []
        while (value := self.items.get(len(values) + 1)) is not None:
            values.append(value)
        return values


class LuaFunction:
    """A Lua function, whose code was skipped."""


Value = None | bool | float | str | LuaTable | Array | LuaFunction
