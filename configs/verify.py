"""Options of `shardtalk verify`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class VerifyConfig:
    """Prove from the files that every input key is in an output exactly once, as a caption or a typed error.

    OUT is the folder that `shardtalk caption` wrote. With INPUT, what was captioned is counted in another way than the
    job read it, and compared key by key; without it the output is checked against itself only.
    """

    paths: list[str] = field(default_factory=list)
    """OUT, the folder that `shardtalk caption` wrote; then, to compare key by key, what was captioned."""
