"""Saves and loads a captioner as a self-sufficient directory.

model.safetensors   the network's weights
vocabulary.json     {"words": […]}
config.json         {"format": 1, "architecture": {…}, "preprocessing": {…}, "provenance": {…}, "scores": {…}}, and,
                    of captioners that are published, "license" and "version" (`model.captioner.metadata`)

Loading executes no pickle. `ZOO` is the folder of the captioners that ship with Shardtalk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from configs.errors import ConfigError
from model.errors import CheckpointError, ModelError
from model.nn.captioning_network import Architecture, Network
from model.vision.preprocessing import Preprocessing
from model.vocabulary import Vocabulary

ZOO = Path(__file__).parents[1] / "zoo"
FORMAT = 1
VOCABULARY = "vocabulary.json"
FILES = ("config.json", VOCABULARY, "model.safetensors")


def find(name: str | Path) -> Path:
    """Returns the directory of a captioner, given the directory or a name in the zoo. Raises CheckpointError."""
    for directory in (Path(name), ZOO / name):
        if (directory / FILES[0]).is_file():
            return directory
    shipped = ", ".join(sorted(path.name for path in ZOO.iterdir() if path.is_dir()))
    is_hub_name = len(Path(name).parts) == 2 and not Path(name).parent.exists()  # noqa: PLR2004
    hint = "; models of the Hugging Face Hub cannot be loaded" if is_hub_name else ""
    raise CheckpointError(
        f"there is no captioner {str(name)!r}: give a directory with a config.json, or one of {shipped}{hint}"
    )


def save(
    directory: Path,
    network: Network,
    *,
    architecture: Architecture,
    vocabulary: Vocabulary,
    preprocessing: Preprocessing,
    dtype: torch.dtype = torch.float32,
    provenance: Mapping[str, Any],
    scores: Mapping[str, Any],
) -> None:
    """Writes a captioner to `directory`, with floating-point weights stored as `dtype`."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {
        name: (value.to(dtype) if value.is_floating_point() else value).contiguous()
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    vocabulary.save(directory / "vocabulary.json")
    save_file(weights, directory / "model.safetensors")
    # safetensors makes the file readable by its owner only.
    (directory / "model.safetensors").chmod((directory / "vocabulary.json").stat().st_mode)
    config = {
        "format": FORMAT,
        "architecture": asdict(architecture),
        "preprocessing": asdict(preprocessing),
        "provenance": dict(provenance),
        "scores": dict(scores),
    }
    (directory / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load(directory: Path) -> tuple[Network, Vocabulary, Preprocessing]:
    """Reads a captioner that `save` wrote; the network is in float32, in evaluation mode. Raises CheckpointError."""
    architecture, preprocessing = _config(directory / "config.json")
    try:
        vocabulary = Vocabulary.load(directory / "vocabulary.json")
        weights = load_file(directory / "model.safetensors")
    except (OSError, SafetensorError, ModelError) as error:
        raise CheckpointError(f"{directory} is no complete captioner: {error}") from error
    _require_size(directory, vocabulary, architecture)
    network = architecture.build()
    expected = network.state_dict()
    wrong = sorted(
        name
        for name in expected.keys() | weights.keys()
        if not name.endswith("num_batches_tracked")
        and (name not in expected or name not in weights or expected[name].shape != weights[name].shape)
    )
    if wrong:
        raise CheckpointError(f"{directory} does not match the architecture in its config.json: {wrong[0]} differs")
    network.load_state_dict({name: value.float() for name, value in weights.items()}, strict=False, assign=True)
    return network.eval(), vocabulary, preprocessing


def check(directory: Path) -> None:
    """Raises CheckpointError if a captioner is incomplete. Reads no weights; `load` checks those."""
    architecture, _ = _config(directory / "config.json")
    _require_size(directory, load_vocabulary(directory), architecture)
    try:
        with safe_open(directory / "model.safetensors", framework="pt"):
            pass  # opening it checks that the file is as long as its header says
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{directory} is no complete captioner: {error}") from error


def _require_size(directory: Path, vocabulary: Vocabulary, architecture: Architecture) -> None:
    if vocabulary.size != architecture.vocabulary_size:
        raise CheckpointError(
            f"{directory}: the vocabulary has {vocabulary.size} ids and the network {architecture.vocabulary_size}"
        )


def load_architecture(directory: Path) -> Architecture:
    """Reads the captioner's architecture without loading its weights. Raises CheckpointError."""
    return _config(directory / "config.json")[0]


def load_preprocessing(directory: Path) -> Preprocessing:
    """Reads the captioner's preprocessing without loading its weights. Raises CheckpointError."""
    return _config(directory / "config.json")[1]


def load_vocabulary(directory: Path) -> Vocabulary:
    """Reads the captioner's vocabulary without loading its weights. Raises CheckpointError."""
    try:
        return Vocabulary.load(directory / "vocabulary.json")
    except ModelError as error:
        raise CheckpointError(f"{directory} is no complete captioner: {error}") from error


def _config(path: Path) -> tuple[Architecture, Preprocessing]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if config["format"] != FORMAT:
            raise CheckpointError(f"{path} is of format {config['format']}; this version reads {FORMAT}")
        return Architecture(**config["architecture"]), Preprocessing(**config["preprocessing"])
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{path} is not a captioner's configuration: {type(error).__name__}: {error}") from error


def fingerprint(directory: Path) -> str:
    """Returns the hexadecimal SHA-256 of all that affects captions: weights, vocabulary, architecture, preprocessing.

    Raises CheckpointError if the captioner is incomplete.
    """
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        described = json.dumps(
            {key: config[key] for key in ("format", "architecture", "preprocessing")}, sort_keys=True
        )
        digest = hashlib.sha256(described.encode())
        for name in FILES[1:]:
            with (directory / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{directory} is no complete captioner: {type(error).__name__}: {error}") from error
    return digest.hexdigest()
