"""The part of an output that one of several drivers writes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from configs.errors import ConfigError


@dataclass(frozen=True, order=True)
class Partition:
    """The i-th of n drivers that share an output."""

    number: int
    """From 1 to `count`."""
    count: int

    @classmethod
    def parse(cls, text: str) -> Partition:
        """Parses "3/16". Raises ConfigError."""
        match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        found = cls(int(match[1]), int(match[2])) if match else cls(0, 0)
        if not 1 <= found.number <= found.count:
            raise ConfigError(f"partition is {text!r}; give i/n, such as 3/16, with i from 1 to n")
        return found

    @property
    def name(self) -> str:
        """The name in those of files and folders, such as "3-of-16"."""
        return f"{self.number}-of-{self.count}"

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"
