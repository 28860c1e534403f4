"""Options of `shardtalk status`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StatusConfig:
    """Show the progress of a job from its output alone, without asking the driver or the cluster."""

    output: str
    """Output folder of the job."""
    json: bool = False
    """Print the progress as JSON."""
