"""The options of a configuration: the fields of its dataclass and of the dataclasses inside it."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from configs.errors import ConfigError
from configs.loading.renamed import new_name


@dataclass(frozen=True)
class Option:
    """A field that holds a value, at the top of a configuration or in a section."""

    name: str
    """The names of the fields that lead to it, and of an entry of a list: `stages.finetune.epochs`."""
    kind: Any
    """Type of the value."""
    value: Any
    """The value that was given, or else the default; MISSING if there is neither."""
    has_default: bool
    """False if a value must be given."""
    description: str
    """The docstring below the field."""
    section: dict[str, Any]
    """The dictionary that holds the value, if one was given."""
    section_description: str
    """The docstring below the field that holds the section."""


def options_of(config: Any, given: dict[str, Any], prefix: str = "", about: str = "") -> Iterator[Option]:
    """The options of a dataclass whose values are in a nested dictionary, which gets the sections that it lacks.

    Raises ConfigError for a key that is no option.
    """
    kinds, described = get_type_hints(config), _descriptions(config)
    for key in given:
        if key not in kinds:
            raise unknown_option(f"{prefix}{key}", [option.name for option in options_of(config, {}, prefix)])
    for field in fields(config):
        kind, name, description = kinds[field.name], f"{prefix}{field.name}", described.get(field.name, "")
        value = given.get(field.name, _default(field))
        if get_origin(kind) is list and not isinstance(value, list | tuple):
            value = [value]
        if entry := entry_of(kind):
            given[field.name] = [_section(each, name, entry) for each in value]
            for each in given[field.name]:
                yield from options_of(entry, each, f"{name}.{each.get('name', entry.name)}.", description)
        elif is_dataclass(kind):
            given[field.name] = vars(_default(field)) | _section(value, name, kind)
            yield from options_of(kind, given[field.name], f"{name}.", description)
        else:
            if field.name in given:
                given[field.name] = value
            has_default = _default(field) is not MISSING
            yield Option(name.replace("-", "_"), kind, value, has_default, description, given, about)


def entry_of(kind: Any) -> Any:
    """The dataclass of which `kind` is a list; None for other types."""
    inner = get_args(kind)[0] if get_origin(kind) is list else None
    return inner if is_dataclass(inner) else None


def unknown_option(written: str, names: list[str]) -> ConfigError:
    """The error for an option that does not exist: its name now, or the names that may be meant.

    Args:
        written: the option as the user wrote it, without the dashes in front of a long one.
        names: the options that exist.
    """
    is_short = written.startswith("-")
    option = written if is_short else written.replace("-", "_")
    parts = {part.replace("-", "_"): part for part in written.split(".")}
    if name := new_name(option):
        return ConfigError(f"`--{written}` is now `--{_respelled(name, parts)}`")
    section, _, rest = option.partition(".")
    entry, _, inside = rest.partition(".")
    siblings = [name.split(".") for name in names if name.startswith(f"{section}.")]
    entries = list(dict.fromkeys(name[1] for name in siblings))
    if inside and entry not in entries and siblings and min(map(len, siblings)) > 2:  # noqa: PLR2004
        return ConfigError(f"--{written}: {section} has {', '.join(entries)}, and no {parts[entry]}")
    last_parts = {name.rpartition(".")[2]: name for name in reversed(names)}
    close = (
        [name for name in names if name.startswith(option.lstrip("-") if is_short else f"{option}.")]
        or difflib.get_close_matches(option, names, cutoff=0.75)
        or [last_parts[each] for each in difflib.get_close_matches(option.rpartition(".")[2], last_parts, cutoff=0.75)]
    )
    hint = f"; did you mean {' or '.join(f'--{_respelled(name, parts)}' for name in close[:2])}?" if close else ""
    return ConfigError(f"there is no option {'' if is_short else '--'}{written}{hint}")


def _respelled(name: str, parts: Mapping[str, str]) -> str:
    """The name of an option, with the dashes that the user wrote in the same parts."""
    return ".".join(parts.get(part, part) for part in name.split("."))


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _section(given: Any, name: str, kind: Any) -> dict[str, Any]:
    """The values of a section as a dictionary of their own. Raises ConfigError for a value that is no section."""
    if isinstance(given, Mapping | kind):
        return dict(given if isinstance(given, Mapping) else vars(given))
    raise ConfigError(f"{name} is {given!r:.80}, but it has options of its own, such as {name}.{fields(kind)[0].name}")


@cache
def _descriptions(config: Any) -> dict[str, str]:
    """The docstring below each field that is a line of its own, those of base classes included."""
    found: dict[str, str] = {}
    for kind in reversed(config.__mro__[:-1]):
        found |= re.findall(r'^ +(\w+): [^\n]*\n +"""(.*?)"""', inspect.getsource(kind), re.MULTILINE | re.DOTALL)
    return {name: " ".join(text.split()) for name, text in found.items()}
