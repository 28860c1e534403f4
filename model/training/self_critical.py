"""Self-critical training (Rennie et al., 2017): the network draws captions, and those above the baseline's reward win.

Letters: B images, N captions drawn for each.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from model.decoding.search import Search
from model.nn.captioning_network import Network


def sample_captions(
    network: Network,
    search: Search,
    *,
    suppressed_ids: Sequence[int] = (),
    images: torch.Tensor | None = None,
    features: torch.Tensor | None = None,
) -> list[list[list[int]]]:
    """Word ids of the N captions that the search finds for each of B images. Leaves the network evaluating.

    Args:
        images, features: as `Network.forward` takes them.
    """
    network.eval()
    with torch.inference_mode():
        embeddings = network.embed(images=images, features=features)
        found = search(network.decoder, embeddings, suppressed_ids=suppressed_ids)
        return [[hypothesis.words for hypothesis in hypotheses] for hypotheses in found]


def advantages(rewards: torch.Tensor, baseline: torch.Tensor | None = None) -> torch.Tensor:
    """Rewards (B, N) → (B × N,): each less the baseline's reward (B, 1), or less the mean of its image's others.

    Neither depends on the caption itself, which keeps the gradient without bias.
    """
    if baseline is None:
        baseline = (rewards.sum(dim=1, keepdim=True) - rewards) / (rewards.shape[1] - 1)
    return (rewards - baseline).flatten()
