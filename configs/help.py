"""The help texts of a command, made from the docstrings of its configuration."""

from __future__ import annotations

import ast
import difflib
import inspect
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin, get_type_hints

from configs.fields import default_of, entry_of

WIDTH = 100
METAVARS = {"output": "FOLDER", "data": "FOLDER", "images_root": "FOLDER", "references": "FILE", "config": "FILE"}
"""What the value of an option is shown as, where its type does not say it."""


@dataclass(frozen=True)
class Command:
    """A command of `shardtalk`, as the user sees it."""

    name: str
    """The word after `shardtalk`; dashes stand for underscores in the name of its module, `jobs.<name>`."""
    summary: str
    """What it does, in a line."""
    config: str
    """Module and class of its configuration."""
    positional: str = ""
    """The option that needs no name; "" where there is none."""
    metavar: str = ""
    """How the positional option is shown."""
    required: bool = True
    """Whether the positional option must be given."""
    extra: str = ""
    """The extra of the package that it needs; "" for none."""
    main: tuple[str, ...] = ()
    """The options that `--help` describes; `--help-all` describes all."""
    examples: tuple[str, ...] = ()
    """Arguments of typical uses."""


def short_text(config: Any, command: Command) -> str:
    """The help text of `--help`: usage, description, examples, the main options, the names of the others."""
    options = dict(_options(config))
    others: dict[str, list[str]] = {}
    for name in options:
        if name not in (*command.main, command.positional):
            section, _, last = name.rpartition(".")
            others.setdefault(f"--{section}." if section else "--", []).append(last)
    lists = [_filled(f"{section}{{{', '.join(names)}}}", "  ", "      ") for section, names in others.items()]
    return _head(config, command) + "".join(
        [
            "\nMain options:\n",
            *(options[name] for name in command.main),
            *(["\nOther options, which --help-all describes:\n", *lists] if others else []),
        ]
    )


def full_text(config: Any, command: Command) -> str:
    """The help text of `--help-all`: usage, description, examples, all options."""
    found = [text for name, text in _options(config) if name != command.positional]
    return _head(config, command) + "".join(["\nOptions:\n", *found])


def option_names(config: Any, section: str = "") -> list[str]:
    """The names of all options, with dots between sections; NAME stands for that of an entry of a list."""
    return [name for name, _ in _leaves(config, section)]


def suggestion(option: str, names: Iterable[str]) -> str:
    """The end of a message on an unknown option or command: the names that are close, if there are any."""
    known = list(names)
    first, _, rest = option.partition(".")
    if any(name.startswith(f"{first}.NAME.") for name in known):
        option = f"{first}.NAME.{rest.partition('.')[2]}"
    if option.startswith("-"):
        close = [name for name in known if name.startswith(option.strip("-"))][:3]
    else:
        tails = {name.rpartition(".")[2]: name for name in reversed(known)}
        found = difflib.get_close_matches(option, known, n=2, cutoff=0.75)
        found = found or difflib.get_close_matches(option.rpartition(".")[2], tails, n=2, cutoff=0.75)
        close = list(dict.fromkeys(tails.get(name, name) for name in found))[:3]
    return f"; did you mean {' or '.join(f'--{name}' for name in close)}?" if close else ""


def _head(config: Any, command: Command) -> str:
    positional = f"{command.metavar} " if command.required else f"[{command.metavar}] "
    required = "".join(f"--{name} {_metavar(name, kind)} " for name, kind in _required(config, command))
    usage = f"usage: shardtalk {command.name} {positional if command.positional else ''}{required}[options]\n\n"
    description = "\n".join(_filled(part) for part in inspect.cleandoc(config.__doc__ or "").split("\n\n"))
    examples = "".join(f"  shardtalk {command.name} {each}\n" for each in command.examples)
    return usage + description + (f"\nExamples:\n{examples}" if examples else "")


def _required(config: Any, command: Command) -> Iterator[tuple[str, Any]]:
    kinds = get_type_hints(config)
    for field in fields(config):
        if default_of(field) is MISSING and field.name != command.positional:
            yield field.name, kinds[field.name]


def _options(config: Any) -> Iterator[tuple[str, str]]:
    """Name and help text of each option, those of this command and of its file first."""
    yield (
        "config",
        _option("config", str, MISSING, "YAML file with any of these options; the command line wins over it."),
    )
    for name, (kind, default, described) in _leaves(config):
        yield name, _option(name, kind, default, described)


def _option(name: str, kind: Any, default: Any, described: str) -> str:

    shown = (
        ",".join(map(str, default)) if isinstance(default, list) else str(default).lower() if kind is bool else default
    )
    ending = f" Default: {shown}." if default is not MISSING and shown not in ("", None) else ""
    head = f"  --{name} {_metavar(name, kind)}".rstrip() + "\n"
    return head + _filled(f"{described}{ending}", "      ", "      ")


def _leaves(config: Any, section: str = "", base: Any = None) -> Iterator[tuple[str, tuple[Any, Any, str]]]:
    """Name, type, default and description of each option."""
    kinds, described = get_type_hints(config), _descriptions(config)
    for field in fields(config):
        kind, name = kinds[field.name], f"{section}{field.name}"
        default = getattr(base, field.name) if base is not None else default_of(field)
        if entry := entry_of(kind):
            yield from _leaves(entry, f"{name}.NAME.", entry())
        elif is_dataclass(kind):
            yield from _leaves(kind, f"{name}.", default)
        else:
            yield name, (kind, default, described.get(field.name, ""))


def _descriptions(config: Any) -> dict[str, str]:
    """The docstring below each field, those of base classes included."""
    found: dict[str, str] = {}
    for kind in reversed(config.__mro__[:-1]):
        (defined,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        body = defined.body if isinstance(defined, ast.ClassDef) else []
        for field, text in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return found


def _metavar(name: str, kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "{" + ",".join(map(str, filter(None, get_args(kind)))) + "}"
    last = name.rpartition(".")[2]
    return METAVARS.get(last) or {int: "N", float: "X", bool: ""}.get(kind, "TEXT")


def _filled(text: str, first: str = "", following: str = "") -> str:
    return (
        textwrap.fill(
            " ".join(text.split()),
            WIDTH,
            initial_indent=first,
            subsequent_indent=following,
            break_long_words=False,
            break_on_hyphens=False,
        )
        + "\n"
    )
