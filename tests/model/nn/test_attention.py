"""A decoder with attention over the regions of the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from brute_force import all_captions, unruled
from conftest import WORDS, picture
from safetensors.torch import save_file
from tolerances import same_log_prob

from configs.search import Search
from model.captioner import Captioner, checkpoint
from model.captioner.ensemble import EnsembleDecoder
from model.decoding.search import generate
from model.decoding.sequence_log_probs import token_log_probs
from model.errors import OptionError
from model.nn.attention import Attention
from model.nn.captioning_network import Architecture, Network
from model.nn.decoder import Decoder
from model.nn.encoder import SMALLEST_STD, Encoder
from model.nn.torchvision_cnns import build_feature_extractor, build_spatial_feature_extractor, load_cnn
from model.training.loss import targets
from model.training.train_step import Batch, pad_captions, summed_loss
from model.vision.preprocessing import Preprocessing
from model.vocabulary import END, Vocabulary

B, P, E, H, V, T, HEADS = 3, 4, 8, 6, 4, 3, 2


@pytest.fixture
def decoder() -> Decoder:
    torch.manual_seed(6)
    decoder = Decoder(V, E, H, attention_heads=HEADS).double().eval()
    for parameter in decoder.parameters():
        parameter.data.mul_(4)  # so that captions differ
    return decoder


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(B, 1 + P, E, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def words() -> torch.Tensor:
    return torch.randint(1, V, (B * 2, 7), generator=torch.Generator().manual_seed(2))


def test_each_head_means_the_places_by_their_likeness() -> None:
    torch.manual_seed(0)
    attention = Attention(E, H, HEADS).double()
    places, hidden = torch.randn(B, P, E).double(), torch.randn(B, T, H).double()
    seen = list[torch.Tensor]()
    for keys, values, queries in zip(
        *(vectors.chunk(HEADS, dim=2) for vectors in (attention.keys(places), places, attention.queries(hidden))),
        strict=True,
    ):
        seen.append((queries @ keys.transpose(1, 2) / (H / HEADS) ** 0.5).softmax(-1) @ values)
    expected = torch.tanh(attention.joined(torch.cat([hidden, *seen], dim=2)))
    assert torch.allclose(attention(hidden, *attention.project_memory(places)), expected, atol=1e-12)


def test_the_order_of_the_places_does_not_matter_but_what_is_there(
    decoder: Decoder, images: torch.Tensor, words: torch.Tensor
) -> None:
    logits, another = decoder(images, words), images.clone()
    assert torch.allclose(decoder(images[:, [0, 3, 1, 4, 2]], words), logits, atol=1e-12)
    another[:, 3] += 1
    assert (decoder(another, words) != logits).any(dim=2).all()


def test_captions_side_by_side_see_their_own_image(decoder: Decoder, images: torch.Tensor, words: torch.Tensor) -> None:
    together = decoder(images, words)
    for i, said in enumerate(words):
        alone = decoder(images[i // 2 : i // 2 + 1], said[None])
        assert torch.allclose(together[i : i + 1], alone, atol=1e-12)


@pytest.mark.parametrize("search", [unruled(beam_size=200, max_tokens=T, num_candidates=5), unruled(max_tokens=T)])
def test_a_beam_finds_what_is_most_probable(decoder: Decoder, images: torch.Tensor, search: Search) -> None:
    for image, found in zip(images, generate(search, decoder, images), strict=True):
        scored = all_captions(decoder, image, T)
        assert [scored[tuple(one.words)] for one in found] == pytest.approx([one.log_prob for one in found], abs=1e-10)
        best = sorted(scored, key=lambda words: -scored[words] / (len(words) + 1) ** 0.7)
        if search.beam_size == 200:
            assert [tuple(one.words) for one in found] == best[:5]


@pytest.mark.parametrize(
    "options",
    [
        {"method": "sample", "num_candidates": 4},
        {"num_beam_groups": 5, "num_candidates": 5},
        {"method": "neuraltalk2", "beam_size": 3, "num_candidates": 2},
    ],
)
def test_an_image_is_searched_as_if_it_were_alone(
    decoder: Decoder, images: torch.Tensor, options: dict[str, int]
) -> None:
    search = unruled(max_tokens=7, **options)  # type: ignore[arg-type]
    together = generate(search, decoder, images)
    for i, expected in enumerate(together):
        (alone,) = generate(search, decoder, images[i : i + 1], image_seeds=torch.tensor([i]))
        assert [one.words for one in alone] == [one.words for one in expected]
    with torch.inference_mode():
        each = token_log_probs(decoder, decoder.initial_state(images), together)
    for found, values in zip(together, each, strict=True):
        assert [sum(of_one) for of_one in values] == pytest.approx([one.log_prob for one in found], abs=1e-5)


def test_one_that_looks_and_one_that_does_not_speak_together(decoder: Decoder, images: torch.Tensor) -> None:
    plain = Decoder(V, E, H).double().eval()
    mixture = EnsembleDecoder([plain, decoder])
    with torch.inference_mode():
        state = mixture.merge_states([plain.initial_state(images[:, 0]), decoder.initial_state(images)])
        start = torch.full((B,), END)
        log_probs, _ = mixture.step(start, state)
        each = [
            one.step(start, one.initial_state(image))[0] for one, image in ((plain, images[:, 0]), (decoder, images))
        ]
    assert torch.allclose(log_probs.exp(), (each[0].exp() + each[1].exp()) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vgg16", 512),
        ("resnet18", 512),
        ("mobilenet_v2", 1280),
        ("mobilenet_v3_small", 576),
        ("efficientnet_b0", 1280),
        ("densenet121", 1024),
        ("inception_v3", 2048),
        ("convnext_tiny", 768),
        ("squeezenet1_1", 512),
        ("swin_t", 768),
    ],
)
def test_a_cnn_is_cut_before_its_pooling(name: str, size: int) -> None:
    with torch.device("meta"):  # shapes without arithmetic
        encoder = Encoder(name, E, spatial=True).eval()
        features = encoder.features(torch.zeros(2, 3, 320, 256))
    assert encoder.feature_size == size
    assert features.shape[::2] == (2, size)
    assert features.shape[1] in (10 * 8, 9 * 7, 8 * 6, 19 * 15)  # a 32nd of the sides, or squeezenet's 16th


def test_the_mean_of_the_places_is_what_is_pooled(tmp_path: Path) -> None:
    torch.manual_seed(3)
    save_file(torchvision.models.get_model("resnet18", weights=None).state_dict(), tmp_path / "cnn.safetensors")
    encoder, (pooled, _) = Encoder("resnet18", E, spatial=True).eval(), build_feature_extractor("resnet18")
    for cnn in (encoder.cnn, pooled.eval()):
        load_cnn(cnn, "resnet18", str(tmp_path / "cnn.safetensors"))
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        features = encoder.features(images)
        assert features.shape == (2, 2 * 3, 512)
        assert torch.allclose(features.mean(dim=1), pooled(images), atol=1e-5)
        encoder.standardize(features)
        assert torch.allclose(encoder.feature_mean, pooled(images).mean(0), atol=1e-5)
        assert torch.allclose(encoder.feature_std, pooled(images).std(0).clamp(min=SMALLEST_STD), atol=1e-5)
        embeddings, places = encoder.project(features), features.reshape(-1, 512)
    expected = encoder.projection((pooled(images) - encoder.feature_mean) / encoder.feature_std).relu()
    assert torch.allclose(embeddings[:, 0], expected, atol=1e-3)
    expected = encoder.places((places - places.mean(0)) / places.std(0).clamp(min=SMALLEST_STD))
    assert torch.allclose(embeddings[:, 1:].flatten(0, 1), expected, atol=1e-3)


def test_what_has_no_map_is_refused() -> None:
    with pytest.raises(OptionError, match="vit_b_16 has none"):
        build_spatial_feature_extractor("vit_b_16")
    with pytest.raises(OptionError, match=r"lenet.*mobilenet_v2"):
        build_spatial_feature_extractor("lenet")
    with pytest.raises(OptionError, match="not one of layers"):
        Architecture(vocabulary_size=V, cnn=[{"kind": "flatten", "outputs": 4}], attention_heads=1).build()
    with pytest.raises(OptionError, match="must be a divisor of embedding_size, 512"):
        Architecture(vocabulary_size=V, attention_heads=3).build()


def test_two_images_that_differ_in_one_place_are_learnt_by_heart() -> None:
    torch.manual_seed(0)
    encoder = Encoder("squeezenet1_1", 8, spatial=True)
    network = Network(encoder, Decoder(V, 8, 8, dropout=0.0, attention_heads=2))
    features = torch.zeros(2, 9, 512)
    features[0, 4, 0] = features[1, 4, 1] = 3.0
    captions, lengths = pad_captions([[1, 2], [3]])
    trained = [*network.decoder.parameters(), *encoder.projection.parameters(), *encoder.places.parameters()]
    optimizer = torch.optim.Adam(trained, lr=0.03)
    for _ in range(150):
        optimizer.zero_grad()
        total, _ = summed_loss(network, Batch(captions, lengths, features=features))
        total.backward()
        optimizer.step()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in trained)
    found = generate(unruled(method="greedy"), network.decoder.eval(), encoder.project(features))
    assert [candidates[0].words for candidates in found] == [[1, 2], [3]]
    wanted = targets(captions, lengths)
    assert network(captions, features=features)[:, 1:].argmax(-1)[wanted >= 0].tolist() == [1, 2, END, 3, END]


def test_a_captioner_with_attention_is_saved_and_says_the_same(tmp_path: Path) -> None:
    torch.manual_seed(4)
    vocabulary = Vocabulary(WORDS)
    architecture = Architecture(
        vocabulary_size=vocabulary.size, cnn="squeezenet1_1", embedding_size=8, hidden_size=12, attention_heads=4
    )
    network, preprocessing = architecture.build().eval(), Preprocessing(image_size=64, resize_size=64)
    images = [picture(i) for i in range(5)]
    with torch.no_grad():
        pixels = torch.from_numpy(np.stack([preprocessing.pixels(image) for image in images]))
        network.encoder.standardize(network.encoder.features(preprocessing.normalize(pixels)))
        for weight in network.decoder.parameters():
            weight.mul_(4)
    shape = {"architecture": architecture, "vocabulary": vocabulary, "preprocessing": preprocessing}
    checkpoint.save(tmp_path / "saved", network, **shape, provenance={}, scores={})
    captioner = Captioner.load(tmp_path / "saved", device="cpu")
    together = captioner.caption(images)
    assert len({caption.text for caption in together}) > 1
    for image, expected in zip(images, together, strict=True):
        (alone,) = captioner.caption([image])
        assert alone.text == expected.text
        one, other = alone.candidates[0], expected.candidates[0]
        assert one.log_prob == same_log_prob(other.log_prob, other.num_tokens)
