"""`shardtalk import-neuraltalk2`: converts a neuraltalk2 checkpoint to a captioner.

read → write → summarise. Beside the captioner, `history.json` keeps the losses and scores of its training.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from pathlib import Path
from typing import Any

from configs.import_neuraltalk2 import ImportNeuraltalk2Config
from jobs import cli
from jobs.console.messages import print_line
from model.captioner import checkpoint
from model.neuraltalk2 import importer
from model.neuraltalk2.importer import Checkpoint
from pipeline.errors import OutputError, WriteError

HISTORY = "history.json"
SUMMARISED_OPTIONS = (
    "id",
    "input_json",
    "cnn_model",
    "batch_size",
    "optim",
    "learning_rate",
    "drop_prob_lm",
    "finetune_cnn_after",
)
"""Options of train.lua in the summary; config.json has all of them."""


def run(config: ImportNeuraltalk2Config) -> int:
    """Imports a checkpoint and prints a summary; returns the exit code."""
    file, output = Path(config.checkpoint), Path(config.output)
    if output.exists() and not output.is_dir():
        raise OutputError(f"output {output} is not a folder; choose another")
    if output.is_dir() and any(output.iterdir()) and not config.overwrite:
        raise OutputError(f"output {output} already has files; choose another, or give --overwrite to write into it")
    found = importer.read(file)
    try:
        _write(found, file, output)
    except OSError as error:
        raise WriteError(f"{output} cannot be written: {error.strerror or error}") from error
    for line in f"{summary(found, file)}\n\n{_hint(output)}".split("\n"):
        print_line(line)
    return 0


def _write(found: Checkpoint, file: Path, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    (output / "config.json").unlink(missing_ok=True)  # written last: a captioner with one is complete
    history = {"loss": found.losses, "val_loss": found.validation_losses, "val_scores": found.validation_scores}
    (output / HISTORY).write_text(json.dumps(_finite(history), indent=1) + "\n", encoding="utf-8")
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    checkpoint.save(
        output,
        found.network,
        architecture=found.architecture,
        vocabulary=found.vocabulary,
        preprocessing=importer.PREPROCESSING,
        provenance={
            "imported_by": "shardtalk import-neuraltalk2",
            "file": {"name": file.name, "sha256": digest},
            "iteration": found.iteration,
            "options": _finite(found.options),
        },
        scores=_finite({"val": last_validation(found)}),
    )


def last_validation(found: Checkpoint) -> dict[str, float]:
    """Returns loss and scores of the last validation, which is the best one: train.lua saves only then."""
    scores = dict(found.validation_scores[max(found.validation_scores)]) if found.validation_scores else {}
    if found.validation_losses:
        scores = {"loss": found.validation_losses[max(found.validation_losses)], **scores}
    return scores


def summary(found: Checkpoint, file: Path) -> str:
    """Describes the contents of the checkpoint in a few lines."""
    shape = found.architecture
    unknown = ", UNK among them" if found.vocabulary.suppressed_ids else ""
    weights = sum(value.numel() for value in found.network.parameters())
    lines = {
        "CNN": f"{len(shape.cnn) + 2} layers, {found.network.encoder.feature_size} features to {shape.embedding_size}",
        "LSTM": f"{shape.layers} × {shape.hidden_size}, captions of up to {shape.max_tokens} tokens",
        "vocabulary": f"{len(found.vocabulary.words)} words{unknown}",
        "options": ", ".join(f"{name} {found.options[name]}" for name in SUMMARISED_OPTIONS if name in found.options),
        "training": _course("loss", found.losses),
        "validation": ", ".join(f"{name} {value:.4g}" for name, value in last_validation(found).items()),
        "before": _course("loss", found.validation_losses),
    }
    head = f"{file.name}: neuraltalk2 at iteration {found.iteration:,}, {weights:,} weights"
    return "\n".join([head, *(f"  {name:11} {text}" for name, text in lines.items() if text)])


def _course(name: str, history: dict[int, float]) -> str:
    """Summarises a history: first and last value, and their number."""
    if not history:
        return ""
    first, last = min(history), max(history)
    return f"{name} {history[first]:.4g} at {first:,} to {history[last]:.4g} at {last:,}, {len(history)} values"


def _hint(output: Path) -> str:
    return (
        f"captioner: {output}\nits own captions: shardtalk caption IMAGES --output OUT --captioner {output}"
        " --search.method neuraltalk2 --search.beam_size 2"
    )


def _finite(value: Any) -> Any:
    """Replaces NaN and infinities, which JSON lacks, by None."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    sys.exit(cli.main(["import-neuraltalk2", *sys.argv[1:]]))
