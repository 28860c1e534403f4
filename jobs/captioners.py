"""`shardtalk captioners`: lists the captioners that ship, or those in folders."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from configs.captioners import CaptionersConfig
from configs.captioning import CaptioningOptions
from jobs import cli
from jobs.console import messages
from model.captioner.checkpoint import FILES
from model.captioner.metadata import Metadata, bundled, read_metadata
from pipeline.inference import captioner_store

MEGABYTE = 1e6
METRICS = {
    "cider": "CIDEr",
    "bleu_1": "BLEU-1",
    "bleu_4": "BLEU-4",
    "meteor": "METEOR",
    "rouge_l": "ROUGE-L",
    "spice": "SPICE",
}
"""The scores that are shown, by their names in lower case. JSON has all."""


def run(config: CaptionersConfig) -> int:
    """Prints the captioners; returns the exit code."""
    directories = [directory for folder in config.folders for directory in _find(folder)] or bundled()
    found = [read_metadata(directory) for directory in directories]
    if config.json:
        sys.stdout.write(json.dumps([_record(one) for one in found], ensure_ascii=False, indent=2) + "\n")
    else:
        for line in "\n\n".join(map(describe, found)).split("\n"):
            messages.print_line(line)
    return 0


def _find(folder: str) -> list[Path]:
    """Returns the captioner at a path, or those directly below it. Raises CheckpointError if there is none."""
    path = Path(folder)
    below = [] if (path / FILES[0]).is_file() else sorted(file.parent for file in path.glob(f"*/{FILES[0]}"))
    return below or [captioner_store.find(folder)]


def _record(one: Metadata) -> dict[str, Any]:
    """Returns what `--json` prints of a captioner."""
    return {"name": one.directory.name} | asdict(one) | {"directory": str(one.directory)}


def describe(one: Metadata) -> str:
    """Formats the metadata as a few lines of text."""
    shape, data = one.architecture, one.training_data
    cnn = shape.cnn if isinstance(shape.cnn, str) else f"a list of {len(shape.cnn)} layers"
    attention = f", {shape.attention_heads} attention heads" if shape.attention_heads else ""
    counts = [f"{data[name]:,} {name}" for name in ("images", "captions") if isinstance(data.get(name), int)]
    is_default = one.directory in bundled() and CaptioningOptions().captioner == [one.directory.name]
    lines = {
        "directory": str(one.directory),
        "size": f"{one.size_bytes / MEGABYTE:,.1f} MB",
        "CNN": f"{cnn}, images of {one.preprocessing.image_size}×{one.preprocessing.image_size} pixels",
        "decoder": f"LSTM of {shape.layers} × {shape.hidden_size}{attention}",
        "vocabulary": f"{one.num_words:,} words",
        "training data": ": ".join(filter(None, [str(data.get("source", "")), ", ".join(counts)])) or "unknown",
        "made by": one.made_by or "unknown",
    }
    for split, scores in one.scores.items():
        shown = [f"{METRICS[name.lower()]} {value:.3f}" for name, value in scores.items() if _is_shown(name, value)]
        lines[f"{split} scores"] = ", ".join(shown)
    lines["licence"] = one.license or "unknown"
    lines["version"] = ", ".join(filter(None, [one.version, f"sha256 {one.sha256[:12]}"]))
    texts = [f"  {name:14} {text}" for name, text in lines.items() if text]
    return "\n".join([f"{one.directory.name}{' (default)' if is_default else ''}", *texts])


def _is_shown(name: str, value: object) -> bool:
    return name.lower() in METRICS and isinstance(value, int | float)


if __name__ == "__main__":
    sys.exit(cli.main(["captioners", *sys.argv[1:]]))
