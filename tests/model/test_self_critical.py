"""Captions that the network draws for itself, and what they are worth."""

import pytest
import torch
from test_training import V, tiny, trainer

from model.self_critical import advantages, draw
from model.training import pad

B, N = 4, 3


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(B, 3, 8, 9, generator=torch.Generator().manual_seed(1))


def test_an_advantage_is_over_the_mean_of_the_others() -> None:
    rewards = torch.tensor([[1.0, 2.0, 6.0], [0.5, 0.5, 0.5]])
    assert advantages(rewards).tolist() == [1 - 4, 2 - 3.5, 6 - 1.5, 0, 0, 0]


def test_captions_of_an_image_are_side_by_side(images: torch.Tensor) -> None:
    network = tiny(dropout=0.5)
    drawn = draw(network, captions_per_image=N, max_tokens=5, seed=1, images=images, unsayable=[2])
    assert len(drawn) == B * N
    assert all(0 < word < V and word != 2 for words in drawn for word in words)
    assert max(map(len, drawn)) <= 5
    assert drawn == draw(network, captions_per_image=N, max_tokens=5, seed=1, images=images, unsayable=[2])
    assert drawn != draw(network, captions_per_image=N, max_tokens=5, seed=2, images=images, unsayable=[2])
    features = network.encoder.features(images)
    assert drawn == draw(network, captions_per_image=N, max_tokens=5, seed=1, features=features, unsayable=[2])


def test_what_is_rewarded_becomes_usual(images: torch.Tensor) -> None:
    """Reward: how often a caption says 3."""
    network = tiny()
    learner = trainer(network, steps=100)

    def said(seed: int) -> tuple[list[list[int]], torch.Tensor]:
        drawn = draw(network, captions_per_image=8, max_tokens=4, seed=seed, images=images)
        return drawn, torch.tensor([float(words.count(3)) for words in drawn])

    _, before = said(-1)
    for seed in range(100):
        drawn, rewards = said(seed)
        learner.step(*pad(drawn), images=images, caption_weights=advantages(rewards.view(B, -1)))
    _, after = said(-1)
    assert before.mean() < 1.0
    assert after.mean() > 3.0
