"""The LSTM decoder: single steps agree with whole captions."""

import pytest
import torch

from model.nn.decoder import Decoder
from model.vocabulary import END

B, P, T, E, H, V = 3, 4, 7, 9, 6, 11


@pytest.fixture(params=[(1, 0), (2, 0), (1, 3)], ids=["one layer", "two layers", "attention"])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    torch.manual_seed(0)
    layers, attention_heads = request.param
    return Decoder(V, E, H, layers=layers, attention_heads=attention_heads).double().eval()


@pytest.fixture
def image(decoder: Decoder) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(B, *((1 + P, E) if decoder.attention else (E,)), dtype=torch.float64, generator=generator)


@pytest.fixture
def words() -> torch.Tensor:
    return torch.randint(1, V, (B, T), generator=torch.Generator().manual_seed(2))


def test_all_at_once_is_step_by_step(decoder: Decoder, image: torch.Tensor, words: torch.Tensor) -> None:
    logits = decoder(image, words)
    assert logits.shape == (B, T + 2, V)
    state = decoder.initial_state(image)
    for step in range(T + 1):
        last = words[:, step - 1] if step else torch.full((B,), END)
        log_probs, state = decoder.step(last, state)
        assert torch.allclose(log_probs, logits[:, step + 1].log_softmax(-1), atol=1e-12)


def test_padding_changes_no_logits_before_it(decoder: Decoder, image: torch.Tensor, words: torch.Tensor) -> None:
    padded = words.clone()
    padded[:, 4:] = END
    assert torch.equal(decoder(image, padded)[:, :6], decoder(image, words)[:, :6])
    assert torch.allclose(decoder(image, words[:, :4]), decoder(image, words)[:, :6], atol=1e-12)


def test_a_caption_does_not_depend_on_its_neighbours(
    decoder: Decoder, image: torch.Tensor, words: torch.Tensor
) -> None:
    whole = decoder(image, words)
    for i in range(B):
        assert torch.allclose(decoder(image[i : i + 1], words[i : i + 1]), whole[i : i + 1], atol=1e-12)


def test_every_logit_hears_the_image(decoder: Decoder, image: torch.Tensor, words: torch.Tensor) -> None:
    changed = (decoder(image, words) != decoder(image + 1, words)).any(dim=2)
    assert changed.all()


def test_no_words_leave_the_logits_of_the_first(decoder: Decoder, image: torch.Tensor, words: torch.Tensor) -> None:
    assert torch.allclose(decoder(image, words[:, :0]), decoder(image, words)[:, :2], atol=1e-12)


def test_gradients_are_those_of_finite_differences(decoder: Decoder, image: torch.Tensor, words: torch.Tensor) -> None:
    names, parameters = zip(*decoder.named_parameters(), strict=True)

    def logits(image: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(decoder, dict(zip(names, values, strict=True)), (image, words))

    inputs = [value.detach().clone().requires_grad_() for value in (image, *parameters)]
    assert torch.autograd.gradcheck(logits, inputs, fast_mode=True)


def test_probabilities_of_half_precision_are_in_float32(decoder: Decoder, image: torch.Tensor) -> None:
    decoder.bfloat16()
    log_probs, _ = decoder.step(torch.full((B,), END), decoder.initial_state(image.bfloat16()))
    assert log_probs.dtype == torch.float32
    assert torch.allclose(log_probs.exp().sum(1), torch.ones(B), atol=1e-5)


def test_dropout_is_of_training_only(decoder: Decoder, image: torch.Tensor, words: torch.Tensor) -> None:
    decoder.train()
    assert not torch.equal(decoder(image, words), decoder(image, words))
    decoder.eval()
    assert torch.equal(decoder(image, words), decoder(image, words))
