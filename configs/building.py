"""Nested dictionary → a frozen dataclass, whose values are converted and checked on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from configs.errors import ConfigError
from configs.fields import default_of, entry_of
from configs.help import METAVARS, option_names, suggestion
from configs.renamed import new_name

Config = TypeVar("Config")
FLAGS = {"true": True, "false": False}
_EXPECTED = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def build(kind: type[Config], given: Any, section: str = "") -> Config:
    """The dataclass from a nested dictionary; values may be of their types already, or text. Raises ConfigError."""
    if isinstance(given, kind):
        return given
    kinds: dict[str, Any] = get_type_hints(kind)
    if not isinstance(given, Mapping):
        first = next(iter(kinds))
        raise ConfigError(f"{section[:-1]} is {given!r}, but it has options of its own, such as {section}{first}")
    values: dict[str, Any] = {}
    for name in given:
        if name not in kinds:
            raise unknown(kind, f"{section}{name}", section)
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name in given:
            value, inner = given[field.name], kinds[field.name]
            if is_dataclass(inner) and isinstance(value, Mapping):  # what is not given is as in the default
                default = default_of(field)
                value = {each.name: getattr(default, each.name) for each in fields(inner)} | dict(value)
            values[field.name] = _converted(inner, value, f"{section}{field.name}")
        elif default_of(field) is MISSING:
            raise ConfigError(f"`--{section}{field.name} {METAVARS.get(field.name, 'VALUE')}` is missing")
    return kind(**values)


def _converted(kind: Any, value: Any, option: str) -> Any:
    """The value as its type wants it. Raises ConfigError."""
    if is_dataclass(kind):
        return build(kind, value, f"{option}.")  # type: ignore[arg-type]
    if get_origin(kind) is list:
        return [_converted(get_args(kind)[0], item, option) for item in _listed(value, option, entry_of(kind))]
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        if value not in choices:
            raise ConfigError(f"{option} is {value!r}; choose {', '.join(map(str, filter(None, choices)))}")
        return value
    try:
        if kind is bool:
            return value if isinstance(value, bool) else FLAGS[value.lower()]
        if value is None or isinstance(value, bool | list | dict) or (kind is int and isinstance(value, float)):
            raise TypeError
        return kind(value)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{option} is {value!r}; it must be {_EXPECTED[kind]}") from error


def _listed(value: Any, option: str, entry: Any) -> list[Any]:
    """A list, or a single value as a list of one."""
    if isinstance(value, list | tuple):
        return list(value)
    if entry or value is None or isinstance(value, dict):
        raise ConfigError(f"{option} is {value!r}; it must be a list")
    return [value] if value != "" else []


def unknown(config: Any, option: str, section: str = "") -> ConfigError:
    """The error for an option that there is not."""
    if name := new_name(option):
        return ConfigError(f"`--{option}` is now `--{name}`")
    shown = option if option.startswith("-") else f"--{option}"
    return ConfigError(f"there is no option {shown}{suggestion(option, option_names(config, section))}")
