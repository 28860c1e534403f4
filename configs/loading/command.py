"""What a command of `shardtalk` takes and shows."""

from __future__ import annotations

from dataclasses import dataclass


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
