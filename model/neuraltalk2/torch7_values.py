"""What a Torch7 file can hold, beside None, booleans, numbers and strings."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]


class LuaTable:
    """A Lua table, or an object with its class. Equal to itself only; it may hold itself.

    Args:
        class_name: of an object, such as "nn.Linear"; empty for a table.
    """

    __slots__ = ("class_name", "fields", "items", "others")

    def __init__(self, class_name: str = "") -> None:
        self.class_name = class_name
        self.fields: dict[str, Value] = {}
        """What has a string for a key."""
        self.items: dict[float, Value] = {}
        """What has a number for a key; 1 finds 1.0."""
        self.others: list[tuple[Value, Value]] = []
        """What has another key: a boolean, a table, …"""

    def __repr__(self) -> str:
        return f"<{self.class_name or 'table'} of {len(self.fields) + len(self.items) + len(self.others)}>"

    def get(self, name: str) -> Value:
        """The value of a string key, None where there is none."""
        return self.fields.get(name)

    def sequence(self) -> list[Value]:
        """The values of 1, 2, 3, … up to the first that is missing."""
        values: list[Value] = []
        while (value := self.items.get(len(values) + 1)) is not None:
            values.append(value)
        return values


class LuaFunction:
    """Lua code that was skipped."""


Value = None | bool | float | str | LuaTable | Array | LuaFunction
