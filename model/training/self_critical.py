"""Self-critical training (Rennie et al., 2017): policy gradient on sampled captions, with a reward baseline.

Letters: B images, N captions sampled per image, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from configs.search import Search
from model.decoding.search import generate
from model.nn.captioning_network import Network


def sample_captions(
    network: Network,
    search: Search,
    *,
    suppressed_ids: Sequence[int] = (),
    images: torch.Tensor | None = None,
    features: torch.Tensor | None = None,
) -> list[list[list[int]]]:
    """Returns the word ids of N captions for each of B images; leaves the network in evaluation mode.

    Args:
        search: with N `num_candidates`.
        suppressed_ids: ids that no caption contains.
        images: (B, 3, H, W); may be left out if `features` are given.
        features: precomputed features, as in `Network.forward`.
    """
    network.eval()
    with torch.inference_mode():
        embeddings = network.embed(images=images, features=features)
        found = generate(search, network.decoder, embeddings, suppressed_ids=suppressed_ids)
        return [[hypothesis.words for hypothesis in hypotheses] for hypotheses in found]


def advantages(rewards: torch.Tensor, baseline: torch.Tensor | None = None) -> torch.Tensor:
    """Maps rewards (B, N) to advantages (B × N,).

    The baseline does not depend on the caption itself, so the gradient stays unbiased.

    Args:
        baseline: (B, 1) reward to subtract; None subtracts the mean reward of the image's other captions.
    """
    if baseline is None:
        baseline = (rewards.sum(dim=1, keepdim=True) - rewards) / (rewards.shape[1] - 1)
    return (rewards - baseline).flatten()
