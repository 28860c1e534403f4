"""Options of `shardtalk completion`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class CompletionConfig:
    """Print a script with which a shell completes the commands of Shardtalk, their options and the options' values.

    SHELL is bash, zsh or tcsh. docs/install.md says where the script goes.
    """

    shell: Literal["bash", "zsh", "tcsh"]
    """The shell."""
