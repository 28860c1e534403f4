"""Self-critical training (Rennie et al., 2017): the network draws captions, and those above the others' reward win.

Letters: B images, N captions drawn for each.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from model.network import Network
from model.search import Search


def draw(
    network: Network,
    *,
    captions_per_image: int,
    max_tokens: int,
    seed: int,
    unsayable: Sequence[int] = (),
    images: torch.Tensor | None = None,
    features: torch.Tensor | None = None,
) -> list[list[int]]:
    """Word ids of B × N captions drawn at random, those of an image side by side. Leaves the network evaluating.

    Args:
        images, features: as `Network.forward` takes them.
    """
    network.eval()
    with torch.inference_mode():
        embeddings = network.embed(images=images, features=features)
        search = Search(method="sample", num_candidates=captions_per_image, max_tokens=max_tokens, seed=seed)
        return [
            hypothesis.words
            for found in search(network.decoder, embeddings, unsayable=unsayable)
            for hypothesis in found
        ]


def advantages(rewards: torch.Tensor) -> torch.Tensor:
    """Rewards (B, N) → (B × N,): each less the mean of its image's others, which keeps the gradient without bias."""
    others = (rewards.sum(dim=1, keepdim=True) - rewards) / (rewards.shape[1] - 1)
    return (rewards - others).flatten()
