"""What `shardtalk status` can be told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StatusConfig:
    """Say how far a job is, from its output alone: no need to ask the driver or the cluster."""

    output: str
    """Folder of the job."""
    json: bool = False
    """Print it as JSON."""
