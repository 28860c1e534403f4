"""The loss, compared with a loop."""

import pytest
import torch

from model.training.loss import PADDING, bag_of_words_loss, caption_loss, targets
from model.vocabulary import END

B, T, V = 4, 7, 11
LENGTHS = torch.tensor([3, 0, 7, 1])


@pytest.fixture
def words() -> torch.Tensor:
    return torch.randint(1, V, (B, T), generator=torch.Generator().manual_seed(2))


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(B, T + 1, V, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def test_targets_are_the_words_then_one_end_then_padding() -> None:
    words = torch.tensor([[5, 6, 7], [8, END, 9]])
    assert targets(words, torch.tensor([3, 1])).tolist() == [[5, 6, 7, END], [8, END, PADDING, PADDING]]
    assert targets(words, torch.tensor([0, 2])).tolist() == [[END, PADDING, PADDING, PADDING], [8, END, END, PADDING]]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_that_of_a_loop(words: torch.Tensor, logits: torch.Tensor, smoothing: float) -> None:
    expected, count = 0.0, 0
    for i, length in enumerate(LENGTHS.tolist()):
        for t, word in enumerate([*words[i, :length].tolist(), END]):
            log_probs = logits[i, t] - logits[i, t].exp().sum().log()
            expected -= (1 - smoothing) * float(log_probs[word]) + smoothing * float(log_probs.mean())
            count += 1
    total, tokens = caption_loss(logits, targets(words, LENGTHS), label_smoothing=smoothing)
    assert float(total) == pytest.approx(expected, abs=1e-10)
    assert int(tokens) == count == int(LENGTHS.sum()) + B


def test_what_follows_the_end_costs_nothing(words: torch.Tensor, logits: torch.Tensor) -> None:
    changed, other_words = logits.clone(), words.clone()
    for i, length in enumerate(LENGTHS.tolist()):
        changed[i, length + 1 :] += 9.0
        other_words[i, length:] = 4
    assert torch.equal(
        caption_loss(changed, targets(other_words, LENGTHS))[0], caption_loss(logits, targets(words, LENGTHS))[0]
    )


def test_gradients_are_those_of_finite_differences(words: torch.Tensor, logits: torch.Tensor) -> None:
    wanted = targets(words, LENGTHS)
    inputs = logits.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda values: caption_loss(values, wanted, label_smoothing=0.1)[0], [inputs])
    caption_loss(inputs, wanted)[0].backward()
    assert inputs.grad is not None
    assert not inputs.grad[1, 1:].any()  # after the END of the caption without words


def test_half_precision_is_summed_in_float32(words: torch.Tensor, logits: torch.Tensor) -> None:
    wanted = targets(words, LENGTHS)
    total, _ = caption_loss(logits.bfloat16(), wanted)
    assert total.dtype == torch.float32
    assert float(total) == pytest.approx(float(caption_loss(logits.bfloat16().double(), wanted)[0]), rel=1e-5)


def test_captions_count_as_much_as_their_weights(words: torch.Tensor, logits: torch.Tensor) -> None:
    wanted, weights = targets(words, LENGTHS), torch.tensor([2.0, 0.0, -1.0, 0.5], dtype=torch.float64)
    alone = [caption_loss(logits[i : i + 1], wanted[i : i + 1])[0] for i in range(B)]
    total, tokens = caption_loss(logits, wanted, caption_weights=weights)
    assert float(total) == pytest.approx(
        sum(float(w * loss) for w, loss in zip(weights, alone, strict=True)), abs=1e-10
    )
    assert int(tokens) == int(LENGTHS.sum()) + B


def test_foretold_words_are_those_of_a_loop(words: torch.Tensor, logits: torch.Tensor) -> None:
    weights = torch.rand(V, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    weights[END] = 0.0
    expected = 0.0
    for i, length in enumerate(LENGTHS.tolist()):
        said = words[i, :length].tolist()
        for word in said:
            share = float(weights[word] / weights[said].sum())
            expected -= share * float(logits[i, 0].log_softmax(0)[word])
    assert float(bag_of_words_loss(logits[:, 0], words, LENGTHS, weights).sum()) == pytest.approx(expected, abs=1e-10)


def test_captions_of_words_without_weight_foretell_nothing(words: torch.Tensor, logits: torch.Tensor) -> None:
    inputs = logits[:, 0].clone().requires_grad_()
    loss = bag_of_words_loss(inputs, words, LENGTHS, torch.zeros(V, dtype=torch.float64)).sum()
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert inputs.grad is not None and not inputs.grad.any()
