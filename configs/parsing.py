"""Command line and YAML files → a frozen dataclass.

Values come, later ones winning, from the defaults, `--config FILE`, and the options of the command line. Files and
options are gathered in one nested dictionary, of which `build` makes the dataclass. Sections are nested dataclasses:
`--search.beam_size 3`. Of a list of dataclasses that have a `name`, `--stages.NAME.epochs 3` changes one; its place,
counted from 0, may stand for NAME. Lists are repeated or separated by commas: `--siblings txt,json`.
"""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

import yaml

from configs.building import FLAGS, build, unknown
from configs.bundled_files import find_config
from configs.errors import ConfigError
from configs.fields import default_of, entry_of
from configs.help import METAVARS, Command, full_text, short_text

Config = TypeVar("Config")


def parse(config: type[Config], argv: list[str], command: Command) -> Config:
    """Returns `config` filled from the arguments. Prints help and exits with 0, where that is asked for.

    Raises ConfigError for a mistake; the message names the option and says what to try.
    """
    for word, help_text in (("--help-all", full_text), ("--help", short_text), ("-h", short_text)):
        if word in argv[: argv.index("--") if "--" in argv else None]:
            sys.stdout.write(help_text(config, command))
            sys.exit(0)
    options, words = _read_arguments(config, argv)
    given: dict[str, Any] = {}
    for name, text in options:
        if name == "config":
            given |= _read_file(text)
    if words:
        given |= _positional(config, command, words)
    for name in dict.fromkeys(name for name, _ in options if name != "config"):
        _assign(config, given, name, [text for each, text in options if each == name])
    if command.positional and command.required and not given.get(command.positional):
        raise ConfigError(f"no {command.metavar} given")
    return build(config, given)


def _read_arguments(config: Any, argv: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """The options, name and text of each, and the other words."""
    options, others, words = list[tuple[str, str]](), list[str](), deque(argv)
    while words:
        word = words.popleft()
        if word == "--":
            return options, [*others, *words]
        if not word.startswith("-") or word == "-":
            others.append(word)
            continue
        name, equals, text = word.partition("=")
        name = name.removeprefix("--").replace("-", "_")
        kind = str if name == "config" else _kind(config, name)
        if is_dataclass(kind):
            raise ConfigError(f"--{name} has options of its own, such as --{name}.{fields(kind)[0].name}")
        if not word.startswith("--") or kind is None:
            raise unknown(config, name if word.startswith("--") else word.partition("=")[0])
        if not equals:
            if kind is bool and (not words or words[0].lower() not in FLAGS):
                text = "true"
            elif words and not words[0].startswith("--"):
                text = words.popleft()
            else:
                raise ConfigError(f"`--{name} {METAVARS.get(name, 'VALUE')}` needs a value")
        options.append((name, text))
    return options, others


def _read_file(name: str) -> dict[str, Any]:
    """The options in a YAML file. Raises ConfigError, which names the file, and the line where it is broken."""
    try:
        found = yaml.safe_load(find_config(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--config {name} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
        place = f"{name}, line {mark.line + 1}" if mark else name
        raise ConfigError(f"{place}: this is not YAML: {problem}") from error
    if not isinstance(found, dict):
        is_what = "is empty" if found is None else f"holds {found!r:.60}"
        raise ConfigError(f"{name} {is_what}; it must hold options, such as `output: FOLDER`")
    return found


def _positional(config: Any, command: Command, words: list[str]) -> dict[str, Any]:
    """The words that belong to no option, by the field that takes them. Raises ConfigError for too many."""
    is_list = command.positional and get_origin(get_type_hints(config)[command.positional]) is list
    for first in range(len(words) - 1):
        joined = " ".join(words[first : first + 2])
        if not Path(words[first]).exists() and Path(joined).exists():
            raise ConfigError(f"there is no {words[first]}, but there is '{joined}'; put quotes around it")
    if not command.positional or (len(words) > 1 and not is_list):
        extra = words[1] if command.positional else words[0]
        raise ConfigError(f"{extra!r} belongs to no option; a text with spaces needs quotes around it")
    return {command.positional: words if is_list else words[0]}


def _assign(config: Any, given: dict[str, Any], option: str, texts: list[str]) -> None:
    """Puts an option of the command line in its place among the others."""
    names, kind, place = deque(option.split(".")), config, given
    while len(names) > 1:
        name = names.popleft()
        inner = get_type_hints(kind)[name]
        if entry := entry_of(inner):
            place, kind = _find(_entries(kind, place, name), name, names.popleft()), entry
        else:
            place, kind = place.setdefault(name, {}), inner
        if not isinstance(place, dict):
            raise ConfigError(
                f"--{option} and `{name}: {place}` in the file contradict each other; {name} is a section"
            )
    kind = get_type_hints(kind)[names[0]]
    if entry_of(kind):
        place[names[0]] = _read_list(option, texts[-1])
    else:
        place[names[0]] = (
            [part for text in texts for part in text.split(",")] if get_origin(kind) is list else texts[-1]
        )


def _read_list(option: str, text: str) -> Any:
    """A list of sections as YAML has it. Raises ConfigError for what is not YAML."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{option} is {text!r}, which is not YAML") from error


def _entries(kind: Any, place: dict[str, Any], name: str) -> Any:
    """The list of dictionaries of that name, made from the default if the file has none."""
    default = next(default_of(field) for field in fields(kind) if field.name == name)
    return place.setdefault(name, [asdict(entry) for entry in default])


def _find(entries: Any, section: str, name: str) -> Any:
    """The entry of that name or place."""
    if not isinstance(entries, list):
        raise ConfigError(f"{section} is {entries!r}; it must be a list")
    names = [str(entry.get("name")) if isinstance(entry, dict) else "" for entry in entries]
    for place, known in enumerate(names):
        if name in (known.replace("-", "_"), str(place)):
            return entries[place]
    raise ConfigError(f"there is no {name!r} among the {section}: {', '.join(names)}")


def _kind(config: Any, option: str) -> Any:
    """The type of an option; None for one that there is not, the dataclass for a section."""
    kind, names = config, deque(option.split("."))
    while names and is_dataclass(kind):
        kind = get_type_hints(kind).get(names.popleft())
        if (entry := entry_of(kind)) and names:
            kind = entry
            names.popleft()  # the entry's name
    return None if names else kind
