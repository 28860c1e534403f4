"""The metadata of a captioner, read from its directory without its weights.

`config.json` has, beside what `checkpoint.load` needs, "scores" by split, in "provenance" where the captioner comes
from and the "data" that it was trained on, and, of captioners that are published, "license", an SPDX identifier, and
"version". None of these affects captions.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.captioner import checkpoint
from model.nn.captioning_network import Architecture
from model.vision.preprocessing import Preprocessing

DATA = "data"
"""The key of the training data in a captioner's provenance: {"source": …, "images": N, "captions": N}."""


@dataclass(frozen=True)
class Metadata:
    """The description of a captioner."""

    directory: Path
    size_bytes: int
    """Size of its files."""
    architecture: Architecture
    preprocessing: Preprocessing
    num_words: int
    """Number of words in its vocabulary."""
    training_data: dict[str, Any]
    """Source of the training data, and its numbers of images and captions; empty if unknown."""
    made_by: str
    """Command that made the captioner; "" if unknown."""
    scores: dict[str, dict[str, Any]]
    """Scores by split, and within it by metric; empty if unknown."""
    license: str
    """SPDX identifier of the weights' licence; "" if the captioner names none."""
    version: str
    """Version of a captioner that is published; "" for others."""
    sha256: str
    """`checkpoint.fingerprint`, by which outputs know the captioner."""


def bundled() -> list[Path]:
    """Returns the directories of the captioners that ship with Shardtalk."""
    return sorted(path.parent for path in checkpoint.ZOO.glob(f"*/{checkpoint.FILES[0]}"))


def read_metadata(directory: Path) -> Metadata:
    """Reads the metadata of the captioner in a directory. Raises CheckpointError if there is none, or a part of one."""
    checkpoint.check(directory)
    config = json.loads((directory / checkpoint.FILES[0]).read_text(encoding="utf-8"))
    provenance = _section(config, "provenance")
    return Metadata(
        directory=directory,
        size_bytes=sum((directory / name).stat().st_size for name in checkpoint.FILES),
        architecture=checkpoint.load_architecture(directory),
        preprocessing=checkpoint.load_preprocessing(directory),
        num_words=len(checkpoint.load_vocabulary(directory).words),
        training_data=_section(provenance, DATA),
        made_by=str(provenance.get("trained_by") or provenance.get("imported_by") or ""),
        scores={split: scores for split, scores in _section(config, "scores").items() if isinstance(scores, dict)},
        license=str(config.get("license") or ""),
        version=str(config.get("version") or ""),
        sha256=checkpoint.fingerprint(directory),
    )


def _section(config: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns a mapping of the configuration; an empty one for what others wrote there."""
    found = config.get(name)
    return found if isinstance(found, dict) else {}
