"""Writes neuraltalk2 checkpoints with random weights, in the form of train.lua."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch7_files import Obj, Storage

WORDS = ("a", "dog", "cat", "runs", "red", "UNK")


def weights(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32) / 3


def convolution(inputs: int, outputs: int, *, kernel: int = 3, seed: int = 1, **fields: Any) -> Obj:
    """Returns a convolution whose kernel is wider than high."""
    height, width = kernel, kernel + 2
    shape = {"nInputPlane": inputs, "nOutputPlane": outputs, "kH": height, "kW": width}
    shape |= {"dH": 2, "dW": 1, "padH": 1, "padW": 0}
    values = {"weight": weights(seed, outputs, inputs, height, width), "bias": weights(seed + 1, outputs)}
    return Obj("nn.SpatialConvolution", shape | values | fields)


def pooling(kernel: int, stride: int, **fields: Any) -> Obj:
    shape = {"kH": kernel, "kW": kernel, "dH": stride, "dW": stride, "padH": 0, "padW": 0}
    return Obj("nn.SpatialMaxPooling", shape | fields)


def linear(inputs: int, outputs: int, seed: int = 5) -> Obj:
    return Obj("nn.Linear", {"weight": weights(seed, outputs, inputs) / 9, "bias": weights(seed + 1, outputs)})


def relu() -> Obj:
    return Obj("nn.ReLU", {"threshold": 0, "val": 0, "inplace": True})


def view(*size: int) -> Obj:
    return Obj("nn.View", {"size": Storage(size or (-1,)), "numInputDims": 3})


def dropout(probability: float = 0.5, *, v2: bool | None = True) -> Obj:
    return Obj("nn.Dropout", {"p": probability} | ({} if v2 is None else {"v2": v2}))


def sequential(*layers: Obj) -> Obj:
    return Obj("nn.Sequential", {"modules": dict(enumerate(layers, start=1))})


def small_cnn(encoding: int = 5) -> list[Obj]:
    """Returns a CNN from 224 × 224 to 2 × 28 × 28, by one pooling with stride 8."""
    pool = pooling(8, 8, ceil_mode=True)
    one = convolution(3, 2, kH=1, kW=1, dH=1, dW=1, padH=0, padW=0, weight=weights(1, 2, 3, 1, 1))
    return [one, relu(), pool, view(), linear(2 * 28 * 28, encoding), relu()]


def language_model(named: Mapping[str, Obj], lookup: np.ndarray, *, rnn_size: int, layers: int, seq_length: int) -> Obj:
    nodes = [Obj("nngraph.Node", {"data": {"annotations": {"_debugLabel": "x"}}})]
    nodes += [
        Obj("nngraph.Node", {"data": {"annotations": {"name": name}, "module": module}})
        for name, module in named.items()
    ]
    fields = {
        "vocab_size": len(lookup) - 1,
        "input_encoding_size": lookup.shape[1],
        "rnn_size": rnn_size,
        "num_layers": layers,
        "seq_length": seq_length,
        "core": Obj("nn.gModule", {"forwardnodes": dict(enumerate(nodes, start=1))}),
        "lookup_table": Obj("nn.LookupTable", {"weight": lookup}),
    }
    return Obj("nn.LanguageModel", fields)


def lstm(
    *, ids: int = len(WORDS) + 1, encoding: int = 5, rnn_size: int = 4, layers: int = 1, seq_length: int = 7
) -> Obj:
    """A language model of random weights with all sizes different."""
    named = {}
    for layer in range(1, layers + 1):
        named[f"i2h_{layer}"] = linear(encoding if layer == 1 else rnn_size, 4 * rnn_size, seed=10 * layer)
        named[f"h2h_{layer}"] = linear(rnn_size, 4 * rnn_size, seed=10 * layer + 3)
    named["drop_final"] = dropout(0.25)
    named["decoder"] = linear(rnn_size, ids, seed=90)
    return language_model(named, weights(99, ids, encoding), rnn_size=rnn_size, layers=layers, seq_length=seq_length)


def saved(
    cnn: Sequence[Obj] | None = None, lm: Obj | None = None, words: Sequence[str] = WORDS, **fields: Any
) -> dict[str, Any]:
    """Returns the contents of a checkpoint file."""
    whole = {
        "opt": {"id": "x", "seq_per_img": 5},
        "iter": 250,
        "protos": {"cnn": sequential(*(cnn or small_cnn())), "lm": lm or lstm()},
        "vocab": {str(i): word for i, word in enumerate(words, start=1)},
    }
    return whole | fields
