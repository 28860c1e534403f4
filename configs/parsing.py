"""Command line and YAML → a frozen dataclass. The only place that knows the command-line library.

A job's configuration is a (nested) frozen dataclass whose field docstrings become `--help`. Values come, later ones
winning, from the defaults, `--config FILE`, then `--section.key value`.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import sys
from argparse import SUPPRESS
from collections.abc import Iterator
from itertools import islice
from typing import Any, NoReturn, TypeVar, get_type_hints

import jsonargparse

Config = TypeVar("Config")

jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)


class ConfigError(ValueError):
    """A value the user gave cannot be used; the message names it and says what to try."""


class _Parser(jsonargparse.ArgumentParser):
    """Says what is wrong in one line and exits with 2, the usage error."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        text = " ".join(str(message).split())
        print(f"{self.prog}: error: {text}{self._suggestion(text)}", file=sys.stderr)  # noqa: T201
        sys.exit(2)

    def _suggestion(self, text: str) -> str:
        known = [option for action in self._actions for option in action.option_strings]
        names = [name.lstrip("-") for name in known if name.startswith("--")]
        unknown = re.search(r"unrecognized arguments: --([\w.-]+)|option '([\w.-]+)'", text)
        if not unknown:
            return ""
        name = unknown[1] or unknown[2]
        tails = {candidate.rsplit(".", 1)[-1]: candidate for candidate in names}
        close = difflib.get_close_matches(name, [*names, *tails], n=3) or difflib.get_close_matches(
            name.rsplit(".", 1)[-1], tails, n=3
        )
        if close:
            choices = dict.fromkeys(f"--{tails.get(match, match)}" for match in close)
            return f"; did you mean {' or '.join(choices)}?"
        return f"; see {self.prog} --help"


def parse(
    config: type[Config],
    argv: list[str] | None,
    *,
    prog: str,
    positional: str = "",
    metavar: str = "INPUT",
    required: bool = True,
) -> Config:
    """Returns `config` filled from `argv` (default: the process's own arguments).

    `positional` names the `list[str]` (or `str`) field that takes the arguments without a `--name`; shown as
    `metavar`; "" where it is neither given nor `required`. A mistake ends the process with exit code 2 and one line on
    stderr that names the key.
    """
    parser = _Parser(prog=prog, description=(config.__doc__ or "").strip())
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_class_arguments(config, skip={positional} if positional else set())
    several = False
    if positional:
        kind = {field.name: field.type for field in dataclasses.fields(config)}[positional]  # type: ignore[arg-type]
        several = str(kind).startswith(("list", "tuple"))
        parser.add_argument(
            positional, nargs="*" if several else "?", metavar=metavar, default=SUPPRESS if required else ""
        )
    spelled = _spelled(sys.argv[1:] if argv is None else argv, set(_flags(config)))
    values = parser.parse_args(_files_first(spelled))
    if positional and required and not values.get(positional):
        parser.error(f"no {metavar} given")
    try:
        return _build(config, values)
    except ValueError as error:
        parser.error(str(error))


def _spelled(argv: list[str], flags: set[str]) -> list[str]:
    """`--num-val=7` as `--num_val=7`, for options are spelled as the fields are; a flag without a value as true."""
    end = argv.index("--") if "--" in argv else len(argv)
    spelled = []
    for argument, following in zip(argv[:end], [*argv[1:end], ""], strict=False):
        name, equals, value = argument.partition("=")
        if not name.startswith("--"):
            spelled.append(argument)
            continue
        name = name[2:].replace("-", "_")
        if name in flags and not equals and following.lower() not in ("true", "false"):
            equals, value = "=", "true"
        spelled.append(f"--{name}{equals}{value}")
    return spelled + argv[end:]


def _files_first(argv: list[str]) -> list[str]:
    """`--config FILE` moved to the front: the command line wins wherever it stands."""
    files, others = [], []
    words = iter(argv)
    for word in words:
        if word == "--config":
            files += [word, *islice(words, 1)]
        elif word.startswith("--config="):
            files.append(word)
        else:
            others += [word, *words] if word == "--" else [word]
    return files + others


def _flags(config: Any, section: str = "") -> Iterator[str]:
    """Dotted names of the fields that are true or false."""
    for name, kind in get_type_hints(config).items():
        if kind is bool:
            yield section + name
        elif dataclasses.is_dataclass(kind):
            yield from _flags(kind, f"{section}{name}.")


def _build(config: type[Config], values: Any) -> Config:
    """The dataclass from the parsed values, so that its own checks run exactly once."""
    kinds = get_type_hints(config)
    return config(
        **{
            name: _build(kind, values[name])
            if isinstance(kind, type) and dataclasses.is_dataclass(kind)
            else values[name]
            for name, kind in kinds.items()
        }
    )
