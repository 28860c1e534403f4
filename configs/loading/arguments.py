"""How `argparse` reads the options of a command, and describes them."""

from __future__ import annotations

import argparse
import inspect
import re
import textwrap
from collections.abc import Iterable
from dataclasses import MISSING
from functools import partial
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from configs.errors import ConfigError
from configs.loading.command import Command
from configs.loading.options import Option, entry_of, options_of

FOLDERS = ("output", "data", "images_root")
_OF_A_FILE = re.compile(r"\w+ file\b")
"""The beginning of the description of an option whose value is a file."""
_filled = partial(textwrap.fill, width=100, break_on_hyphens=False)


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are ConfigError."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            add_help=False,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
            conflict_handler="resolve",  # stages of the same name are a mistake that `build` finds
            formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=100, max_help_position=6),
            **settings,
        )

    def error(self, message: str) -> NoReturn:
        """Raises ConfigError."""
        raise ConfigError(message)


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that all commands have."""
    parser.add_argument("-h", "--help", action="store_true", help="Describe the main options.")
    parser.add_argument("--help-all", "--help_all", action="store_true", help="Describe all options.")
    described = "YAML file with any of these options; the command line wins over it."
    parser.add_argument("--config", action="append", metavar="FILE", help=described)


def add_options(parser: argparse.ArgumentParser, command: Command, options: Iterable[Option]) -> list[argparse.Action]:
    """Adds the options of a command, in a group for each section. Returns their actions."""
    groups: dict[str, Any] = {"": parser}
    actions = []
    for option in options:
        section = option.name.rpartition(".")[0]
        if section not in groups:
            groups[section] = parser.add_argument_group(f"--{section}", _filled(option.section_description))
        ending = f" Default: {shown}." if (shown := _shown(option.value)) else ""
        settings: dict[str, Any] = {"help": (option.description + ending).replace("%", "%%")}
        if option.name == command.positional:
            actions.append(parser.add_argument(option.name, nargs="*", metavar=command.metavar, **settings))
            continue
        if option.kind is bool:
            settings |= {"nargs": "?", "const": "true"}
        elif get_origin(option.kind) is list:
            settings |= {"action": "extend", "type": lambda text: text.split(",")}
        elif get_origin(option.kind) is Literal:
            settings["choices"] = get_args(option.kind)
        actions.append(groups[section].add_argument(f"--{option.name}", metavar=metavar_of(option), **settings))
    return actions


def metavar_of(option: Option) -> str:
    """What the value of an option is shown as."""
    if get_origin(option.kind) is Literal:
        return f"{{{','.join(filter(None, get_args(option.kind)))}}}"
    if option.kind is str and _OF_A_FILE.match(option.description):
        return "FILE"
    if option.name in FOLDERS:
        return "FOLDER"
    return {int: "N", float: "X", bool: "true|false"}.get(option.kind, "TEXT")


def help_text(config: Any, command: Command, *, everything: bool) -> str:
    """The text of `--help-all`, or of `--help`, which describes the main options and names the others."""
    lists = [name for name, kind in get_type_hints(config).items() if entry_of(kind)]
    options = [*options_of(config, {name: [{"name": "NAME"}] for name in lists})]
    main = [option for option in options if everything or option.name in (*command.main, command.positional)]
    words = [command.metavar if command.required else f"[{command.metavar}]"] if command.positional else []
    missing = [option for option in options if option.value is MISSING and option.name != command.positional]
    words += [f"--{option.name} {metavar_of(option)}" for option in missing]
    epilog = ["examples:", *(f"  shardtalk {command.name} {each}" for each in command.examples)]
    if others := [option.name for option in options if option not in main]:
        epilog += ["", _filled(f"--help-all describes the other options: {', '.join(others)}.")]
    parser = Parser(
        usage=" ".join(["shardtalk", command.name, *words, "[options]"]),
        description="\n\n".join(map(_filled, inspect.cleandoc(config.__doc__).split("\n\n"))),
        epilog="\n".join(epilog),
    )
    add_options(parser, command, main)
    add_common_options(parser)
    return parser.format_help()


def _shown(value: Any) -> str:
    """A default as the command line has it; "" where there is none."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "" if value is MISSING else str(value).lower() if isinstance(value, bool) else str(value)
