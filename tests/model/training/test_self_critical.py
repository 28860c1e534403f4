"""Self-critical training: sampled captions and their rewards."""

import pytest
import torch
from brute_force import unruled
from test_train_step import V, tiny, trainer

from configs.search import Search
from model.training.loss import caption_loss, targets
from model.training.self_critical import advantages, sample_captions
from model.training.train_step import Batch, pad_captions, summed_loss

B, N = 4, 3


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(B, 3, 8, 9, generator=torch.Generator().manual_seed(1))


def test_an_advantage_is_over_the_mean_of_the_others() -> None:
    rewards = torch.tensor([[1.0, 2.0, 6.0], [0.5, 0.5, 0.5]])
    assert advantages(rewards).tolist() == [1 - 4, 2 - 3.5, 6 - 1.5, 0, 0, 0]


def test_an_advantage_may_be_over_a_baseline() -> None:
    rewards = torch.tensor([[1.0, 2.0], [0.5, 0.25]])
    assert advantages(rewards, torch.tensor([[1.5], [0.0]])).tolist() == [-0.5, 0.5, 0.5, 0.25]


def sampling(seed: int, max_tokens: int = 5, count: int = N) -> Search:
    return unruled(method="sample", num_candidates=count, max_tokens=max_tokens, seed=seed)


def test_captions_are_drawn_for_each_image(images: torch.Tensor) -> None:
    network = tiny(dropout=0.5)
    drawn = sample_captions(network, sampling(1), images=images, suppressed_ids=[2])
    assert [len(captions) for captions in drawn] == [N] * B
    words = [words for captions in drawn for words in captions]
    assert all(0 < word < V and word != 2 for caption in words for word in caption)
    assert max(map(len, words)) <= 5
    assert drawn == sample_captions(network, sampling(1), images=images, suppressed_ids=[2])
    assert drawn != sample_captions(network, sampling(2), images=images, suppressed_ids=[2])
    features = network.encoder.features(images)
    assert drawn == sample_captions(network, sampling(1), features=features, suppressed_ids=[2])


def test_what_is_rewarded_becomes_usual(images: torch.Tensor) -> None:
    """Rewards captions by their number of words with id 3."""
    network = tiny()
    learner = trainer(network, steps=100)

    def said(seed: int) -> tuple[list[list[int]], torch.Tensor]:
        drawn = sample_captions(network, sampling(seed, max_tokens=4, count=8), images=images)
        rewards = torch.tensor([[float(words.count(3)) for words in captions] for captions in drawn])
        return [words for captions in drawn for words in captions], rewards

    _, before = said(-1)
    for seed in range(100):
        drawn, rewards = said(seed)
        learner.step([Batch(*pad_captions(drawn), images=images, caption_weights=advantages(rewards))])
    _, after = said(-1)
    assert before.mean() < 1.0
    assert after.mean() > 3.0


def test_what_was_drawn_is_learnt_at_its_temperature(images: torch.Tensor) -> None:
    network = tiny().eval()
    words, lengths = pad_captions([[3, 1], [5], [9, 2, 2], [7]])
    temperatures = torch.tensor([0.5, 1.0, 2.0, 0.25])
    total, _ = summed_loss(network, Batch(words, lengths, images=images, caption_temperatures=temperatures))
    logits, wanted = network(words, images=images)[:, 1:], targets(words, lengths)
    alone = [caption_loss(logits[i : i + 1] / temperatures[i], wanted[i : i + 1])[0] for i in range(B)]
    assert total.item() == pytest.approx(torch.stack(alone).sum().item(), rel=1e-6)
