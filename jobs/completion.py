"""`shardtalk completion`: a script that completes the command line in a shell, made by shtab of the same parsers."""

from __future__ import annotations

import argparse
import sys

import shtab

from configs.completion import CompletionConfig
from configs.loading.arguments import add_common_options, add_options
from configs.loading.options import options_of
from jobs import cli


def run(config: CompletionConfig) -> int:
    """Prints the script. Returns the exit code."""
    parser = argparse.ArgumentParser("shardtalk")
    parser.add_argument("--version", action="store_true", help="Print the version.")
    commands = parser.add_subparsers()
    for command in cli.COMMANDS.values():
        parser_of_command = commands.add_parser(command.name, help=command.summary, add_help=False)
        add_common_options(parser_of_command)
        for action in add_options(parser_of_command, command, options_of(cli.config_class(command), {})):
            if action.metavar in (command.metavar, "FOLDER", "FILE"):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    sys.stdout.write(shtab.complete(parser, config.shell))
    return 0


if __name__ == "__main__":
    sys.exit(cli.main(["completion", *sys.argv[1:]]))
