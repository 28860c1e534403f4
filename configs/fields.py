"""What the fields of a configuration say about themselves."""

from __future__ import annotations

from dataclasses import MISSING, Field, is_dataclass
from typing import Any, get_args, get_origin


def entry_of(kind: Any) -> Any:
    """The dataclass of which `kind` is a list; None for other types."""
    inner = get_args(kind)[0] if get_origin(kind) is list else None
    return inner if is_dataclass(inner) else None


def default_of(field: Field[Any]) -> Any:
    """The default of a field; MISSING for a field that must be given."""
    return field.default if field.default_factory is MISSING else field.default_factory()
