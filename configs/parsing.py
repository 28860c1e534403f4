"""Command line and YAML → a frozen dataclass. The only place that knows the command-line library.

A job's configuration is a (nested) frozen dataclass whose field docstrings become `--help`. Values come, later ones
winning, from the defaults, `--config FILE`, then `--section.key value`. Of a list of dataclasses that have a `name`,
`--list.NAME.key value` changes an entry, as does its place in NAME's stead.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import re
import sys
from argparse import SUPPRESS
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from itertools import islice
from typing import Any, NoReturn, TypeVar, get_args, get_origin, get_type_hints

import jsonargparse

Config = TypeVar("Config")

jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)


class _Parser(jsonargparse.ArgumentParser):
    """Says what is wrong in one line and exits with 2, the usage error."""

    entries: Mapping[str, Any] = {}
    """The dataclass of each field that is a list of them."""

    def format_help(self, formatter: Any = None) -> str:
        """As usual; of entries of lists that are there by default, only the names."""
        text = super().format_help(formatter)
        for entry in self.entries.values():
            shown = re.compile(rf"default:\s+\[({entry.__name__}\(.*?\))\]\)", re.DOTALL)
            name = re.compile(rf"{entry.__name__}\(name='([^']*)'")
            text = shown.sub(lambda found, name=name: f"default: {', '.join(name.findall(found[1]))})", text)  # type: ignore[misc]
        return text

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # the parser of an entry of a list: that of the whole says where it is
            super().error(message, ex)
        text = re.sub(r"Problem with given class_path '[^']*': ", "", " ".join(str(message).split()))
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)  # as the terminal may get it
        with contextlib.suppress(OSError):  # nobody can read it
            print(f"{self.prog}: error: {text}{self._suggestion(text)}", file=sys.stderr)  # noqa: T201
        sys.exit(2)

    def _suggestion(self, text: str) -> str:
        known = [option for action in self._actions for option in action.option_strings]
        names = [name.lstrip("-") for name in known if name.startswith("--")]
        unknown = re.search(r"unrecognized arguments: --([\w.-]+)|[Oo]ption '([\w.-]+)'", text)
        if not unknown:
            return ""
        name = unknown[1] or unknown[2]
        names += [f"{name}.NAME.{field.name}" for name, entry in self.entries.items() for field in fields(entry)]
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
        kind = {field.name: field.type for field in fields(config)}[positional]  # type: ignore[arg-type]
        several = str(kind).startswith(("list", "tuple"))
        parser.add_argument(
            positional, nargs="*" if several else "?", metavar=metavar, default=SUPPRESS if required else ""
        )
    parser.entries = entries = _entries(config)
    spelled = _spelled(sys.argv[1:] if argv is None else argv, set(_flags(config)))
    spelled = _files_first(_gathered(spelled, set(_one_or_more(config))))
    spelled, changes = _apart(spelled, entries)
    values = parser.parse_args(spelled)
    if changes:
        values = parser.parse_args([*spelled, *_with_changes(values, changes, parser)])
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


def _gathered(argv: list[str], names: set[str]) -> list[str]:
    """`--captioner A --captioner B` as `--captioner=["A", "B"]`, for options of which there may be more than one."""
    values: dict[str, list[str]] = {}
    others = []
    words = iter(argv)
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if word == "--":
            others += [word, *words]
        elif word.startswith("--") and name in names:
            values.setdefault(name, []).extend([value] if equals else islice(words, 1))
        else:
            others.append(word)
    given = [f"--{name}={some[0] if len(some) == 1 else json.dumps(some)}" for name, some in values.items()]
    return [*given, *others]


def _one_or_more(config: Any) -> Iterator[str]:
    """Names of the fields that are a text or a list of them."""
    return (name for name, kind in get_type_hints(config).items() if {str, list[str]} <= {*get_args(kind)})


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
    return config(**{name: _built(kind, values[name]) for name, kind in kinds.items()})


def _built(kind: Any, value: Any) -> Any:
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and not isinstance(value, kind):
        return _build(kind, value)
    if entry := _entry(kind):
        return [_built(entry, item) for item in value]
    return value


def _entry(kind: Any) -> Any:
    """The dataclass of which `kind` is a list, if it is."""
    inner = get_args(kind)[0] if get_origin(kind) is list else None
    return inner if dataclasses.is_dataclass(inner) else None


def _entries(config: Any) -> dict[str, Any]:
    """The lists of dataclasses among the fields: name and dataclass."""
    return {name: entry for name, kind in get_type_hints(config).items() if (entry := _entry(kind))}


def _apart(argv: list[str], entries: Iterable[str]) -> tuple[list[str], list[tuple[str, str, str, str]]]:
    """The arguments without those of the entries of lists; and these: list, entry, key, value."""
    others, changes = list[str](), list[tuple[str, str, str, str]]()
    words = deque(argv)
    while words:
        word = words.popleft()
        name, equals, value = word.removeprefix("--").partition("=")
        listed, _, rest = name.partition(".")
        entry, _, key = rest.partition(".")
        if not word.startswith("--") or listed not in entries or not key:
            others.append(word)
            continue
        if not equals:
            value = "true" if not words or words[0].startswith("--") else words.popleft()
        changes.append((listed, entry, key, value))
    return others, changes


def _with_changes(values: Any, changes: Iterable[tuple[str, str, str, str]], parser: _Parser) -> list[str]:
    """Arguments that give the lists anew, with the changes in them."""
    lists: dict[str, list[dict[str, Any]]] = {}
    for listed, entry, key, value in changes:
        items = lists.setdefault(listed, [_plain(item) for item in values[listed]])
        found = [item for i, item in enumerate(items) if entry in (item["name"], str(i))]
        if not found:
            names = ", ".join(item["name"] for item in items)
            parser.error(f"--{listed}.{entry}.{key}: there is no {entry!r} among the {listed}: {names}")
        place: Any = found[0]
        *path, last = key.split(".")
        for part in path:
            place = place.get(part)
            if not isinstance(place, dict):
                parser.error(f"unrecognized arguments: --{listed}.{entry}.{key}")
        place[last] = _literal(value)
    return [f"--{name}={json.dumps(items)}" for name, items in lists.items()]


def _plain(item: Any) -> dict[str, Any]:
    return dataclasses.asdict(item) if dataclasses.is_dataclass(item) else item.as_dict()  # type: ignore[arg-type]


def _literal(text: str) -> Any:
    """A number, true, false or null as JSON has them; else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
