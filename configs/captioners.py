"""Options of `shardtalk captioners`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class CaptionersConfig:
    """List the captioners that ship with Shardtalk, or those in folders, with their sizes, scores and licences.

    FOLDER is a captioner, or holds captioners, as the folder of a training run does. Scores are those that training
    measured on the split that is named, and stored in the captioner's config.json.
    """

    folders: list[str] = field(default_factory=list)
    """Folders of captioners; a captioner may also be a URL, a name, or module:factory. Empty: all that ship, and those
    that installed packages add."""
    json: bool = False
    """Print the captioners as JSON, with all scores."""
