"""Options of `shardtalk status`."""

from __future__ import annotations

from dataclasses import dataclass

from configs.errors import ConfigError


@dataclass(frozen=True)
class StatusConfig:
    """Show the progress of a job from its output alone, without asking the driver or the cluster."""

    output: str
    """Output folder of the job."""
    json: bool = False
    """Print the progress as JSON, a line each time: rows, errors, files and bytes, done and in total, the rate, and the
    seconds that are left."""
    watch: bool = False
    """Print the progress again and again, until the job is complete, or no driver runs it any more (exit code 1)."""
    interval_s: float = 10.0
    """Seconds between two looks of --watch."""

    def __post_init__(self) -> None:
        if not 0.1 <= self.interval_s <= 86_400:  # noqa: PLR2004
            raise ConfigError(f"interval_s is {self.interval_s:g}; it must be 0.1 to 86400 seconds")
