"""Command line and YAML files → a frozen dataclass.

Values come, later ones winning, from the defaults, `--config FILE`, and the options of the command line. Sections are
nested dataclasses: `--search.beam_size 3`. Of a list of dataclasses that have a `name`, `--stages.NAME.epochs 3`
changes one. Lists are repeated or separated by commas: `--siblings txt,json`. Names have dashes or underscores.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

from configs.errors import ConfigError
from configs.loading.arguments import Parser, add_common_options, add_options, help_text
from configs.loading.building import build
from configs.loading.bundled_files import find_config
from configs.loading.command import Command
from configs.loading.options import Option, options_of, unknown_option

Config = TypeVar("Config")


def parse(config: type[Config], argv: list[str], command: Command) -> Config:
    """Returns `config` filled from the arguments. Prints help and exits with 0, where that is asked for.

    Raises ConfigError for a mistake; the message names the option and says what to try.
    """
    end = argv.index("--") if "--" in argv else len(argv)
    common = Parser()
    add_common_options(common)
    asked, rest = common.parse_known_args([_with_underscores(word) for word in argv[:end]])
    if "help" in asked or "help_all" in asked:
        sys.stdout.write(help_text(config, command, everything="help_all" in asked))
        sys.exit(0)
    given: dict[str, Any] = {}
    for name in getattr(asked, "config", []):
        given |= _read_file(name)
    options = list(options_of(config, given))
    values, words = _read_arguments(command, options, rest, {_with_underscores(word): word for word in argv})
    words += argv[end + 1 :]
    for option in options:
        if option.name in values:
            option.section[option.name.rpartition(".")[2]] = values[option.name]
    if words:
        given[command.positional] = _positional(config, command, words)
    if command.positional and command.required and not given.get(command.positional):
        raise ConfigError(f"no {command.metavar} given; an example is: shardtalk {command.name} {command.examples[0]}")
    return build(config, given)


def _read_arguments(
    command: Command, options: list[Option], words: list[str], written: Mapping[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """The values of the options that are given, and the words that belong to none. Raises ConfigError.

    Args:
        written: each word as the user wrote it.
    """
    parser = Parser()
    add_options(parser, command, options)
    flags = {f"--{option.name}" for option in options if option.kind is bool}
    found, rest = parser.parse_known_args([*_with_values(words, flags)])
    for word in rest:
        if word.startswith("-") and word != "-":
            name = written.get(word, word).partition("=")[0].removeprefix("--")
            raise unknown_option(name, [option.name for option in options])
    values = vars(found)
    return values, [*values.pop(command.positional, []), *rest]


def _read_file(name: str) -> dict[str, Any]:
    """The options in a YAML file. Raises ConfigError, which names the file, and the line where it is broken."""
    import yaml

    try:
        with find_config(name).open("rb") as file:
            found = yaml.safe_load(file)
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"--config cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        is_what = "is empty" if found is None else f"holds {found!r:.60}"
        raise ConfigError(f"{name} {is_what}; it must hold options, such as `output: FOLDER`")
    return found


def _with_underscores(word: str) -> str:
    """The word with an option's name as its field has it."""
    name, equals, value = word.partition("=")
    return f"--{name[2:].replace('-', '_')}{equals}{value}" if word.startswith("--") else word


def _with_values(words: list[str], flags: set[str]) -> Iterator[str]:
    """The words, where flags have values: argparse would take the input after `--retry_errors` for one."""
    for word, following in pairwise([*words, ""]):
        yield f"{word}=true" if word in flags and following.lower() not in ("true", "false") else word


def _positional(config: Any, command: Command, words: list[str]) -> list[str] | str:
    """The value of the positional option. Raises ConfigError for too many words."""
    if "" in words:
        raise ConfigError(f"{command.metavar or 'an argument'} is an empty text")
    for first, second in pairwise(words):
        if not Path(first).exists() and Path(f"{first} {second}").exists():
            raise ConfigError(f"there is no {first}, but there is '{first} {second}'; put quotes around it")
    if command.positional and get_origin(get_type_hints(config)[command.positional]) is list:
        return words
    for extra in words[1:] if command.positional else words:
        raise ConfigError(f"{extra!r} belongs to no option; a text with spaces needs quotes around it")
    return words[0]
