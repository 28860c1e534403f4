"""Nested dictionary → a frozen dataclass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING
from typing import TYPE_CHECKING, Any, TypeVar

from configs.errors import ConfigError
from configs.loading.arguments import metavar_of
from configs.loading.options import options_of

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Config = TypeVar("Config")


def build(config: type[Config], given: Mapping[str, Any]) -> Config:
    """The dataclass from a nested mapping, whose values pydantic converts and checks. Raises ConfigError."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError  # late: --help does without
    from pydantic_core import to_jsonable_python

    values = dict(given)
    for option in options_of(config, values):
        if not option.has_default and option.value in (MISSING, ""):  # as of --output "$UNSET"
            raise ConfigError(f"`--{option.name} {metavar_of(option)}` is missing")
        if isinstance(option.value, bool) and option.kind is not bool:  # pydantic takes `off` in YAML for the number 0
            raise ConfigError(f"{option.name} is {str(option.value).lower()}; only flags are true or false")
    # A list, because its dataclasses take over the rule that a dataclass by itself cannot be given here.
    adapter = TypeAdapter(list[config], config=ConfigDict(coerce_numbers_to_str=True))  # type: ignore[valid-type]
    try:
        return adapter.validate_python([to_jsonable_python(values, fallback=str, bytes_mode="base64")])[0]
    except ValidationError as error:
        raise _mistake(error.errors()[0], values) from error


def _mistake(error: ErrorDetails, values: Mapping[str, Any]) -> Exception:
    """The error of pydantic as one of ours; that of `__post_init__` as it is."""
    if error["type"] == "value_error":
        raised: Exception = error["ctx"]["error"]
        return raised
    names = [str(part) for part in error["loc"][1:]]
    if len(names) > 2 and isinstance(entries := values.get(names[0]), list) and names[1].isdigit():  # noqa: PLR2004
        names[1] = str(entries[int(names[1])].get("name", names[1]))
    if names[-1].isdigit():  # the place of a value in a list
        names.pop()
    option = ".".join(names)
    expected = error["msg"].replace("Input should be", "it must be").partition(", unable")[0]
    return ConfigError(f"{option} is {error['input']!r:.80}; {expected}")
