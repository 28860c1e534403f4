"""Losses, gradients and updates, compared with those that neuraltalk2 computed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_train_step import optimizer
from torch import nn

from model.neuraltalk2 import importer
from model.training.optimizers import build_optimizer
from model.training.train_step import Batch, summed_loss
from model.vocabulary import END

FIXTURES = Path(__file__).parents[2] / "fixtures" / "neuraltalk2"
CAPTIONS_PER_IMAGE = 5
TORCH_GATES = [0, 1, 3, 2]  # PyTorch's rows (input, forget, candidate, output), in Torch's order


class Masked(nn.Module):
    """Applies dropout with the noise of a fixture."""

    def __init__(self, noise: torch.Tensor) -> None:
        super().__init__()
        self.noise = noise

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values * self.noise


def words(labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Converts ids (D, N) from 1, with 0 after the end, to the form of `Batch`."""
    lengths = torch.from_numpy((labels > 0).sum(axis=0).astype(np.int64))
    longest = max(1, int(lengths.max()))
    return torch.from_numpy(labels.T[:, :longest].astype(np.int64)), lengths  # their 0 is our END, and ours to ignore


def their_layout(gradients: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns our decoder's gradients under neuraltalk2's names, in its order of gates and ids."""

    def gates(rows: torch.Tensor) -> torch.Tensor:
        return rows.view(4, -1, *rows.shape[1:])[TORCH_GATES].flatten(0, 1)

    def ids(rows: torch.Tensor) -> torch.Tensor:
        return rows.roll(-1, dims=0)  # END last

    return {
        "g_i2h_1_weight": gates(gradients["lstm.weight_ih_l0"]),
        "g_i2h_1_bias": gates(gradients["lstm.bias_ih_l0"]),
        "g_h2h_1_weight": gates(gradients["lstm.weight_hh_l0"]),
        "g_h2h_1_bias": gates(gradients["lstm.bias_hh_l0"]),
        "g_decoder_weight": ids(gradients["output.weight"]),
        "g_decoder_bias": ids(gradients["output.bias"]),
        "g_lookup_table_weight": ids(gradients["embedding.weight"]),
    }


@pytest.mark.parametrize("name", ["varied16", "short5", "withempty", "dropout"])
def test_losses_and_gradients_are_those_of_neuraltalk2(name: str) -> None:
    fixture = np.load(FIXTURES / "train_math" / f"{name}.npz")
    decoder = importer.read(FIXTURES / "checkpoints" / "A.t7").network.decoder.requires_grad_(True)
    said, lengths = words(fixture["labels"])
    if "noise" in fixture:
        decoder.dropout = Masked(torch.from_numpy(fixture["noise"]).transpose(0, 1)[:, : said.shape[1] + 2])  # type: ignore[assignment]
    embeddings = torch.from_numpy(fixture["feats"]).requires_grad_(True)

    def network(heard: torch.Tensor, **_: Any) -> torch.Tensor:
        logits: torch.Tensor = decoder(embeddings.repeat_interleave(CAPTIONS_PER_IMAGE, dim=0), heard)
        return logits

    total, tokens = summed_loss(network, Batch(said, lengths))  # type: ignore[arg-type]
    loss = total / tokens
    loss.backward()  # type: ignore[no-untyped-call]
    assert int(tokens) == fixture["predictions"]
    assert loss.item() == pytest.approx(float(fixture["loss"]), abs=1e-5)
    assert embeddings.grad is not None
    assert np.allclose(embeddings.grad, fixture["grad_feats"], atol=1e-5)
    ours = their_layout({key: value.grad for key, value in decoder.named_parameters() if value.grad is not None})
    assert ours.keys() == {key for key in fixture if key.startswith("g_")}
    for key, gradient in ours.items():
        assert np.abs(fixture[key]).max() > 0.01
        assert np.allclose(gradient, fixture[key], atol=1e-5), key
    assert END == 0


UPDATES = json.loads((FIXTURES / "train_math" / "optim_updates.json").read_text())
OURS = {
    "sgd": {"name": "sgd", "beta1": 0.0},
    "sgdm": {"name": "sgd"},
    "sgdmom": {"name": "nesterov"},
    "rmsprop": {"name": "rmsprop", "beta1": 0.0},
    "adagrad": {"name": "adagrad"},
    "adam_lm": {"name": "neuraltalk2_adam"},
    "adam_cnn": {"name": "neuraltalk2_adam"},
    "adam_bigeps": {"name": "neuraltalk2_adam"},
}


@pytest.mark.parametrize("name", OURS)
def test_updates_are_those_of_neuraltalk2(name: str) -> None:
    given, theirs = UPDATES[name]["args"], UPDATES[name]["x"]
    options = {
        "beta1": given.get("beta1", given.get("alpha", 0.0)),
        "beta2": given.get("beta2", given.get("alpha", 0.0)),
        "epsilon": given.get("eps", 0.0),
    }
    x = nn.Parameter(torch.tensor(UPDATES["x0"], dtype=torch.float64))
    updating = build_optimizer(optimizer(given["lr"], **options | OURS[name]), [x], undecayed=())
    for gradient, expected in zip(UPDATES["grads"], theirs, strict=True):
        x.grad = torch.tensor(gradient, dtype=torch.float64)
        updating.step()
        assert x.tolist() == pytest.approx(expected, abs=1e-6)  # theirs are of single precision


def test_their_adam_is_not_pytorchs() -> None:
    x = nn.Parameter(torch.tensor(UPDATES["x0"], dtype=torch.float64))
    updating = torch.optim.Adam([x], lr=0.1, betas=(0.9, 0.999), eps=0.01)
    x.grad = torch.tensor(UPDATES["grads"][0], dtype=torch.float64)
    updating.step()
    assert x.tolist() != pytest.approx(UPDATES["adam_bigeps"]["x"][0], abs=1e-3)


def test_weight_decay_is_added_to_the_gradient() -> None:
    still, decayed = (nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    for parameter, decay in ((still, 0.0), (decayed, 0.5)):
        parameter.grad = torch.full((2, 2), 1.0 - decay)
        options = optimizer(0.1, name="neuraltalk2_adam", weight_decay=decay)
        build_optimizer(options, [parameter], undecayed=()).step()
    assert torch.equal(still, decayed)
