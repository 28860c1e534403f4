"""Imports a neuraltalk2 checkpoint: a captioner that generates the same captions, and the history of its training.

The file holds a table, as train.lua saves it: opt, iter, loss_history, val_loss_history, val_lang_stats_history,
val_predictions, vocab and protos, which has the networks `cnn` and `lm`. Torch's LSTM orders its gates input, forget,
output, candidate; PyTorch's input, forget, candidate, output. Word ids start at 1 in both; Torch's END is the last id,
ours is 0.

Letters: V vocabulary (END included), E embedding, H hidden, L layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from configs.errors import ConfigError
from model.errors import CheckpointError, ModelError
from model.neuraltalk2 import torch7_reader
from model.neuraltalk2.cnn import evaluation_factor, integer, read_cnn, tensor
from model.neuraltalk2.torch7_values import LuaTable, Value
from model.nn.captioning_network import Architecture, Network
from model.vision.preprocessing import Preprocessing
from model.vocabulary import Vocabulary

PREPROCESSING = Preprocessing(
    image_size=224,
    resize="stretch",
    resize_size=256,
    mean=(123.68 / 255, 116.779 / 255, 103.939 / 255),
    std=(1 / 255, 1 / 255, 1 / 255),
    resampling="torch",
    crop_offset=15,
    loading="torch",
)
"""Preprocessing of net_utils.prepro without augmentation, on images as DataLoaderRaw loads them."""

_GATES = [0, 1, 3, 2]  # Torch's rows, in PyTorch's order


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint file."""

    network: Network
    """The network, in evaluation mode."""
    architecture: Architecture
    vocabulary: Vocabulary
    options: dict[str, str | float | bool]
    """Command-line options of train.lua."""
    iteration: int
    """Training iteration at which it was saved; 0 if unknown."""
    losses: dict[int, float]
    """Training loss in nats per token, by iteration."""
    validation_losses: dict[int, float]
    """Validation loss in nats per token, by iteration."""
    validation_scores: dict[int, dict[str, float]]
    """Validation scores, such as CIDEr, by iteration."""


def read(path: Path) -> Checkpoint:
    """Reads a checkpoint file, saved on CPU or GPU, binary or ASCII.

    Raises CheckpointError for a file that is no neuraltalk2 checkpoint, and for layers and sizes that are unsupported.
    """
    saved = torch7_reader.read(path)
    try:
        return _checkpoint(saved)
    except (ModelError, ConfigError) as error:
        raise CheckpointError(f"{path} cannot be imported: {error}") from error


def _checkpoint(saved: Value) -> Checkpoint:
    protos = _table(saved, "protos", "the file")
    lm = _table(protos, "lm", "protos")
    cnn = read_cnn(protos.get("cnn"), image_size=PREPROCESSING.image_size)
    language, dropout = _language_model(lm)
    embedding_size = len(cnn.projection["bias"])
    if embedding_size != integer(lm, "input_encoding_size"):
        raise CheckpointError(
            f"the CNN gives {embedding_size} values and the language model reads {integer(lm, 'input_encoding_size')}"
        )
    architecture = Architecture(
        vocabulary_size=integer(lm, "vocab_size") + 1,
        cnn=cnn.layers,
        embedding_size=embedding_size,
        hidden_size=integer(lm, "rnn_size"),
        layers=integer(lm, "num_layers", 1),
        dropout=dropout,
        max_tokens=integer(lm, "seq_length"),
    )
    features = cnn.projection["weight"].shape[1]
    weights = {f"encoder.cnn.{name}": value for name, value in cnn.weights.items()}
    weights |= {f"encoder.projection.{name}": value for name, value in cnn.projection.items()}
    weights |= {"encoder.feature_mean": torch.zeros(features), "encoder.feature_std": torch.ones(features)}
    weights |= {f"decoder.{name}": value for name, value in language.items()}
    with torch.device("meta"):  # spares random weights, which are replaced at once
        network = architecture.build()
    network.load_state_dict(weights, assign=True)
    return Checkpoint(
        network=network.eval(),
        architecture=architecture,
        vocabulary=_vocabulary(_table(saved, "vocab", "the file"), integer(lm, "vocab_size")),
        options=_options(saved),
        iteration=integer(saved, "iter", 0) if isinstance(saved, LuaTable) else 0,
        losses=_numbers(saved, "loss_history"),
        validation_losses=_numbers(saved, "val_loss_history"),
        validation_scores=_scores(saved),
    )


def _language_model(lm: LuaTable) -> tuple[dict[str, torch.Tensor], float]:
    """Converts the language model; returns the decoder's weights by name, and its dropout probability."""
    named = _named_modules(_table(lm, "core", "lm"))
    size, hidden, inputs = integer(lm, "vocab_size") + 1, integer(lm, "rnn_size"), integer(lm, "input_encoding_size")
    layers = integer(lm, "num_layers", 1)
    weights = {"embedding.weight": tensor(_table(lm, "lookup_table", "lm"), "weight", (size, inputs)).roll(1, dims=0)}
    for layer in range(layers):
        read = {"ih": inputs if layer == 0 else hidden, "hh": hidden}
        for ours, theirs in (("ih", f"i2h_{layer + 1}"), ("hh", f"h2h_{layer + 1}")):
            module = _module(named, theirs)
            weight = tensor(module, "weight", (4 * hidden, read[ours]))
            if ours == "ih" and layer > 0:
                weight = weight * _factor(named, f"drop_{layer + 1}")
            weights[f"lstm.weight_{ours}_l{layer}"] = _our_gates(weight, hidden)
            weights[f"lstm.bias_{ours}_l{layer}"] = _our_gates(tensor(module, "bias", (4 * hidden,)), hidden)
    decoder = _module(named, "decoder")
    weights["output.weight"] = tensor(decoder, "weight", (size, hidden)).roll(1, dims=0) * _factor(named, "drop_final")
    weights["output.bias"] = tensor(decoder, "bias", (size,)).roll(1, dims=0)
    drop = named.get("drop_final")
    probability = drop.get("p") if drop else 0.0
    return weights, probability if isinstance(probability, float) else 0.0


def _our_gates(rows: torch.Tensor, hidden: int) -> torch.Tensor:
    """Reorders the gates of (4 × H, …) from Torch's to PyTorch's order."""
    return rows.view(4, hidden, *rows.shape[1:])[_GATES].flatten(0, 1)


def _factor(named: dict[str, LuaTable], name: str) -> float:
    return evaluation_factor(named[name]) if name in named else 1.0


def _named_modules(core: LuaTable) -> dict[str, LuaTable]:
    """Returns the modules of an `nn.gModule` that misc/LSTM.lua named, by name."""
    nodes = core.get("forwardnodes")
    named = {}
    for node in nodes.sequence() if isinstance(nodes, LuaTable) else []:
        data = node.get("data") if isinstance(node, LuaTable) else None
        if isinstance(data, LuaTable):
            annotations, module = data.get("annotations"), data.get("module")
            name = annotations.get("name") if isinstance(annotations, LuaTable) else None
            if isinstance(name, str) and isinstance(module, LuaTable):
                named[name] = module
    return named


def _module(named: dict[str, LuaTable], name: str) -> LuaTable:
    if name not in named or named[name].class_name != "nn.Linear":
        found = named[name].class_name if name in named else "missing"
        raise CheckpointError(f"{name} of the language model should be an nn.Linear, and is {found}")
    return named[name]


def _vocabulary(vocab: LuaTable, size: int) -> Vocabulary:
    longest = len(str(size))
    by_id = {int(key): word for key, word in vocab.items.items() if key in range(1, size + 1)}
    by_id |= {
        int(key): w for key, w in vocab.fields.items() if key.isascii() and key.isdecimal() and len(key) <= longest
    }
    if sorted(by_id) != list(range(1, size + 1)):
        raise CheckpointError(
            f"the vocabulary has {len(by_id)} words and the language model {size}; the ids should be 1 to {size}"
        )
    words = [by_id[i] for i in range(1, size + 1)]
    for word in words:
        if not isinstance(word, str) or not word.isprintable():
            raise CheckpointError(f"{word!r} is a word of the vocabulary, and no printable text")
    return Vocabulary(tuple(str(word) for word in words))


def _table(owner: Value, name: str, where: str) -> LuaTable:
    found = owner.get(name) if isinstance(owner, LuaTable) else None
    if not isinstance(found, LuaTable):
        raise CheckpointError(f"{where} has no table {name}, so it is no checkpoint of neuraltalk2")
    return found


def _options(saved: Value) -> dict[str, str | float | bool]:
    found = _table(saved, "opt", "the file").fields
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in sorted(found.items())
        if isinstance(value, str | float | bool)
    }


def _numbers(saved: Value, name: str) -> dict[int, float]:
    """Reads a history: numbers by iteration."""
    history = saved.get(name) if isinstance(saved, LuaTable) else None
    items = history.items if isinstance(history, LuaTable) else {}
    return {int(key): value for key, value in sorted(items.items()) if isinstance(value, float) and math.isfinite(key)}


def _scores(saved: Value) -> dict[int, dict[str, float]]:
    history = saved.get("val_lang_stats_history") if isinstance(saved, LuaTable) else None
    items = history.items if isinstance(history, LuaTable) else {}
    return {
        int(key): {name: score for name, score in sorted(scores.fields.items()) if isinstance(score, float)}
        for key, scores in sorted(items.items())
        if isinstance(scores, LuaTable) and math.isfinite(key)
    }
