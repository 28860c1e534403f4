"""Options of `shardtalk verify`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class VerifyConfig:
    """Prove from the files that every image of the input is in an output exactly once, as a caption or a typed error.

    OUT is the folder that `shardtalk caption` wrote. With INPUT, its images are listed again, by other code than the
    job read them with, and compared with the rows of the output one by one. Without INPUT, the output is only checked
    for contradictions in itself.
    """

    paths: list[str] = field(default_factory=list)
    """The folder that `shardtalk caption` wrote, then the same inputs as were given to that command."""
