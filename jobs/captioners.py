"""`shardtalk captioners`: lists the captioners that ship, or those in folders."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from configs.captioners import CaptionersConfig
from configs.captioning import CaptioningOptions
from jobs import cli
from jobs.console import messages
from model.captioner.checkpoint import FILES
from model.captioner.metadata import bundled
from pipeline.captioners import registry
from pipeline.captioners.network_captioner import NetworkCaptioner
from pipeline.captioners.protocol import ImageCaptioner

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
    if config.folders:
        found = [each for name in config.folders for each in _find(name)]
    else:
        found = [_record(NetworkCaptioner([str(directory)])) for directory in bundled()]
        found += [_installed(each) for each in registry.installed()]
    if config.json:
        sys.stdout.write(json.dumps(found, ensure_ascii=False, indent=2, default=str) + "\n")
    else:
        for line in "\n\n".join(map(describe, found)).split("\n"):
            messages.print_line(line)
    return 0


def _find(name: str) -> list[dict[str, Any]]:
    """Describes the captioner of that name, or those directly below a folder. Raises CheckpointError for neither."""
    path = Path(name)
    below = [] if (path / FILES[0]).is_file() else sorted(file.parent for file in path.glob(f"*/{FILES[0]}"))
    names = [str(directory) for directory in below] or [name]
    return [_record(registry.build_captioner(CaptioningOptions(captioner=[each]))) for each in names]


def _record(captioner: ImageCaptioner) -> dict[str, Any]:
    """Returns what `--json` prints of a captioner."""
    return {"name": captioner.name} | captioner.about()


def _installed(each: EntryPoint) -> dict[str, Any]:
    """Describes a captioner that another package declares, without importing it."""
    package = f"{each.dist.name} {each.dist.version}" if each.dist else "unknown"
    return {"name": each.name, "factory": each.value, "package": package}


def describe(one: Mapping[str, Any]) -> str:
    """Formats a record as a few lines of text: those of a network's metadata by their labels, others by their names."""
    lines = _describe_network(one) if "architecture" in one else {key: _text(one[key]) for key in one if key != "name"}
    is_default = one.get("directory") in {
        str(directory) for directory in bundled()
    } and CaptioningOptions().captioner == [one["name"]]
    texts = [f"  {name:14} {text}" for name, text in lines.items() if text]
    return "\n".join([f"{one['name']}{' (default)' if is_default else ''}", *texts])


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return " ".join(map(str, value.values())) if isinstance(value, Mapping) else str(value)


def _describe_network(one: Mapping[str, Any]) -> dict[str, str]:
    """Returns lines about a network by their labels."""
    shape, data, side = one["architecture"], one["training_data"], one["preprocessing"]["image_size"]
    cnn = shape["cnn"] if isinstance(shape["cnn"], str) else f"a list of {len(shape['cnn'])} layers"
    attention = f", {shape['attention_heads']} attention heads" if shape["attention_heads"] else ""
    counts = [f"{data[name]:,} {name}" for name in ("images", "captions") if isinstance(data.get(name), int)]
    lines = {
        "directory": one["directory"],
        "size": f"{one['size_bytes'] / MEGABYTE:,.1f} MB",
        "CNN": f"{cnn}, images of {side}×{side} pixels",
        "decoder": f"LSTM of {shape['layers']} × {shape['hidden_size']}{attention}",
        "vocabulary": f"{one['num_words']:,} words",
        "training data": ": ".join(filter(None, [str(data.get("source", "")), ", ".join(counts)])) or "unknown",
        "made by": one["made_by"] or "unknown",
    }
    for split, scores in one["scores"].items():
        shown = [f"{METRICS[name.lower()]} {value:.3f}" for name, value in scores.items() if _is_shown(name, value)]
        lines[f"{split} scores"] = ", ".join(shown)
    lines["licence"] = one["license"] or "unknown"
    lines["version"] = ", ".join(filter(None, [one["version"], f"sha256 {one['sha256'][:12]}"]))
    return lines


def _is_shown(name: str, value: object) -> bool:
    return name.lower() in METRICS and isinstance(value, int | float)


if __name__ == "__main__":
    sys.exit(cli.main(["captioners", *sys.argv[1:]]))
