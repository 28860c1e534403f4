"""The import of neuraltalk2 checkpoints: the original's results, and invalid files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from neuraltalk2_files import (
    WORDS,
    convolution,
    dropout,
    language_model,
    linear,
    lstm,
    pooling,
    relu,
    saved,
    sequential,
    small_cnn,
    view,
    weights,
)
from PIL import Image
from tolerances import same_log_prob
from torch.nn import functional
from torch7_files import CHECKPOINTS, FIXTURES, Obj, Tensor, dumps

from model.decoding import neuraltalk2_search
from model.errors import CheckpointError
from model.neuraltalk2 import importer
from model.neuraltalk2.importer import PREPROCESSING, Checkpoint

EVALUATED = json.loads((FIXTURES / "eval" / "A_eval.json").read_text())
FILES = {name: entry["file"] for name, entry in json.loads((FIXTURES / "images.json").read_text()).items()}
END_THERE = 41
Import = Callable[..., Checkpoint]


@pytest.fixture
def imported(tmp_path: Path) -> Import:
    """Writes a checkpoint and imports it."""

    def through_a_file(*arguments: Any, **fields: Any) -> Checkpoint:
        (tmp_path / "x.t7").write_bytes(dumps(saved(*arguments, **fields)))
        return importer.read(tmp_path / "x.t7")

    return through_a_file


@pytest.fixture(scope="module", params=["A.t7", "A_ascii.t7", "D_cuda.t7"])
def original(request: pytest.FixtureRequest) -> Checkpoint:
    return importer.read(CHECKPOINTS / request.param)


@pytest.fixture(scope="module")
def embeddings(original: Checkpoint) -> torch.Tensor:
    """Computes the embeddings of the image files, in the order of `EVALUATED`."""
    files = [FIXTURES / "images" / FILES[image["name"]] for image in EVALUATED]
    pixels = np.stack([PREPROCESSING.pixels(Image.open(file)) for file in files])
    with torch.inference_mode():
        return original.network.encoder(PREPROCESSING.normalize(torch.from_numpy(pixels)))


def test_encodings_are_the_originals(embeddings: torch.Tensor) -> None:
    expected = np.load(FIXTURES / "eval" / "A_encodings.npy")
    np.testing.assert_allclose(embeddings, expected, atol=1e-4, rtol=0)


def theirs(tokens: Sequence[int], length: int) -> list[int]:
    """Converts ids to the original's numbering, padded."""
    return [token or END_THERE for token in tokens] + [0] * (length - len(tokens))


@pytest.mark.parametrize("beams", [1, 2, 3, 5, 10])
def test_what_is_said_is_what_the_original_said(original: Checkpoint, embeddings: torch.Tensor, beams: int) -> None:
    length, decoder = original.architecture.max_tokens, original.network.decoder
    with torch.inference_mode():
        if beams == 1:
            said = neuraltalk2_search.greedy_search(decoder, decoder.initial_state(embeddings), length=length)
        else:
            finished = neuraltalk2_search.beam_search(
                decoder, decoder.initial_state(embeddings), beams=beams, length=length
            )
            said = [found[0] for found in finished]
    for i, image in enumerate(EVALUATED):
        expected = image["decode"][str(beams)]
        assert theirs(said[i].tokens, length) == expected["seq"]
        assert said[i].log_probs == same_log_prob(expected["seqLogprobs"][: len(said[i].tokens)])
        assert original.vocabulary.decode(said[i].words) == expected["sentence"]
        if isinstance(done := expected.get("done"), list):
            assert sorted(theirs(spoken.tokens, length) for spoken in finished[i]) == sorted(d["seq"] for d in done)
            assert [spoken.log_prob for spoken in finished[i]] == same_log_prob([d["p"] for d in done], length)
        elif beams > 1:
            assert len(finished[i]) == done


def test_a_step_of_two_layers_is_the_originals(imported: Import) -> None:
    step = np.load(FIXTURES / "lstm_step" / "twolayer.npz")
    named = {
        name: Obj("nn.Linear", {"weight": step[f"{name}_weight"], "bias": step[f"{name}_bias"]})
        for name in ("i2h_1", "h2h_1", "i2h_2", "h2h_2", "decoder")
    }
    model = language_model(named, weights(0, 7, 5), rnn_size=6, layers=2, seq_length=9)
    decoder = imported(lm=model).network.decoder
    before = tuple(torch.from_numpy(np.stack([step[f"prev_{kind}{layer}"] for layer in "12"])) for kind in "hc")
    with torch.inference_mode():
        output, after = decoder.lstm(torch.from_numpy(step["x"]).unsqueeze(1), before)
        log_probs = decoder.output(output.squeeze(1)).log_softmax(1)
    for state, kind in zip(after, "hc", strict=True):
        for layer in (0, 1):
            np.testing.assert_allclose(state[layer], step[f"next_{kind}{layer + 1}"], atol=1e-6)
    np.testing.assert_allclose(log_probs.roll(-1, dims=1), step["logprobs"], atol=1e-5)


def encoded(checkpoint: Checkpoint, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return checkpoint.network.encoder(images.clone())


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def test_layers_keep_their_sides_steps_and_paddings(imported: Import, images: torch.Tensor) -> None:
    one, two = convolution(3, 4), convolution(4, 6, seed=3, padW=2, dW=2)
    pools = [pooling(3, 2, ceil_mode=True, padW=1), pooling(3, 2)]
    sizes = 6 * 13 * 27  # checked below
    last = linear(7, 5, seed=8)
    cnn = [one, relu(), pools[0], two, pools[1], view(-1, sizes), linear(sizes, 7), dropout(), last, relu()]
    found = encoded(imported(cnn), images)

    x = images
    weight, bias = (torch.from_numpy(one.fields[name]) for name in ("weight", "bias"))
    x = functional.conv2d(x, weight, bias, stride=(2, 1), padding=(1, 0)).relu()
    x = functional.max_pool2d(x, (3, 3), (2, 2), (0, 1), ceil_mode=True)
    weight, bias = (torch.from_numpy(two.fields[name]) for name in ("weight", "bias"))
    x = functional.conv2d(x, weight, bias, stride=(2, 2), padding=(1, 2))
    x = functional.max_pool2d(x, 3, 2)
    assert x.shape == (2, 6, 13, 27)
    for layer in (cnn[6], last):
        x = functional.linear(x.flatten(1), *(torch.from_numpy(layer.fields[name]) for name in ("weight", "bias")))
    np.testing.assert_allclose(found, x.relu(), atol=1e-5)


def test_windows_that_do_not_fill_the_image_count_where_they_did(imported: Import, images: torch.Tensor) -> None:
    def features(ceil: bool) -> int:
        side = 45 if ceil else 44  # 224 in steps of 5: 44 of them and 4 pixels
        cnn = [pooling(5, 5, ceil_mode=ceil), view(), linear(3 * side * side, 5), relu()]
        return imported(cnn).network.encoder.feature_size

    assert (features(True), features(False)) == (3 * 45 * 45, 3 * 44 * 44)


def test_a_whole_network_may_be_nested_and_of_cudnn(imported: Import, images: torch.Tensor) -> None:
    plain = imported(small_cnn())
    layers = small_cnn()
    for layer in (*layers[:3], layers[5]):
        layer.class_name = layer.class_name.replace("nn.", "cudnn.")
    nested = imported([sequential(*layers[:4], Obj("nn.Identity", {})), sequential(sequential(*layers[4:]))])
    assert torch.equal(encoded(plain, images), encoded(nested, images))


def test_weights_of_old_files_are_matrices(imported: Import, images: torch.Tensor) -> None:
    layers = small_cnn()
    fields = layers[0].fields
    for name in ("padH", "padW"):
        del fields[name]
    old = Obj("nn.SpatialConvolutionMM", {**fields, "padding": 0, "weight": fields["weight"].reshape(2, 3)})
    assert torch.equal(encoded(imported(small_cnn()), images), encoded(imported([old, *layers[1:]]), images))


def test_channels_may_be_in_groups_and_without_bias(imported: Import, images: torch.Tensor) -> None:
    kernel = weights(4, 6, 1, 3, 5)
    grouped = convolution(3, 6, groups=3, weight=kernel, bias=None)
    cnn = [grouped, view(), linear(6 * 112 * 220, 5), relu()]
    found = encoded(imported(cnn), images)
    x = functional.conv2d(images, torch.from_numpy(kernel), stride=(2, 1), padding=(1, 0), groups=3)
    weight, bias = (torch.from_numpy(cnn[2].fields[name]) for name in ("weight", "bias"))
    np.testing.assert_allclose(found, functional.linear(x.flatten(1), weight, bias).relu(), atol=1e-4)


@pytest.mark.parametrize("v2", [False, None])
def test_dropout_of_the_first_kind_shrinks_what_it_lets_pass(
    imported: Import, images: torch.Tensor, v2: bool | None
) -> None:
    layers = small_cnn()
    found = encoded(imported([*layers[:4], dropout(0.25, v2=v2), *layers[4:]]), images)
    weight, bias = (torch.from_numpy(layers[4].fields[name]) for name in ("weight", "bias"))
    projection = imported(layers).network.encoder
    with torch.inference_mode():
        features = projection.features(images.clone())
    np.testing.assert_allclose(found, functional.linear(0.75 * features, weight, bias).relu(), atol=1e-5)


def test_dropout_of_the_first_kind_in_the_lstm(imported: Import) -> None:
    model = lstm(layers=2)
    nodes = model.fields["core"].fields["forwardnodes"]
    nodes[len(nodes) + 1] = Obj(
        "nngraph.Node", {"data": {"annotations": {"name": "drop_2"}, "module": dropout(0.75, v2=None)}}
    )
    plain, shrunk = (imported(lm=m).network.decoder for m in (lstm(layers=2), model))
    assert torch.equal(plain.lstm.weight_ih_l1 * 0.25, shrunk.lstm.weight_ih_l1)
    assert torch.equal(plain.lstm.weight_ih_l0, shrunk.lstm.weight_ih_l0)
    assert torch.equal(plain.output.weight, shrunk.output.weight)


def test_a_trailing_dropout_does_nothing(imported: Import, images: torch.Tensor) -> None:
    one, two = imported(small_cnn()), imported([*small_cnn(), dropout()])
    assert torch.equal(encoded(one, images), encoded(two, images))


def test_the_shape_of_the_decoder_is_the_files(imported: Import) -> None:
    found = imported(lm=lstm(layers=2, rnn_size=4, seq_length=7))
    expected = {"vocabulary_size": 7, "embedding_size": 5, "hidden_size": 4, "layers": 2, "dropout": 0.25}
    assert dataclasses.asdict(found.architecture).items() >= (expected | {"max_tokens": 7}).items()
    assert found.vocabulary.words == WORDS
    assert found.network.decoder.max_tokens == 7


def test_tables_of_words_may_have_numbers_for_keys(imported: Import) -> None:
    assert imported(vocab=dict(enumerate(WORDS, start=1))).vocabulary.words == WORDS


def test_what_else_is_in_the_file(original: Checkpoint) -> None:
    assert original.options["drop_prob_lm"] == 0.5
    assert original.options["batch_size"] == 16
    assert original.iteration == 2500
    assert original.losses == {0: 4.1, 25: 3.7, 2500: 2.25}
    assert original.validation_losses == {0: 4.05, 2500: 2.5}
    assert original.validation_scores == {2500: {"Bleu_1": 0.4, "CIDEr": 0.1}}


def refused(imported: Import, reason: str, *arguments: Any, **fields: Any) -> None:
    with pytest.raises(CheckpointError, match=r"x\.t7 cannot be imported: ") as raised:
        imported(*arguments, **fields)
    assert reason in str(raised.value)


L = small_cnn()
REPEATED = Tensor(np.ones(2 * 28 * 28, np.float32), (5, 2 * 28 * 28), (0, 1))


@pytest.mark.parametrize(
    ("cnn", "reason"),
    [
        ([*L[:2], Obj("nn.LRN", {"name": "norm1"}), *L[2:]], "layer 3 of the CNN, nn.LRN 'norm1', is none of"),
        ([Obj("inn.ReLU", {}), *L], "layer 1 of the CNN, inn.ReLU, is none of"),
        (L[:-1], "the CNN ends in nn.View and nn.Linear, not in Linear and ReLU"),
        ([*L[:-1], Obj("nn.Tanh", {})], "layer 6 of the CNN, nn.Tanh, is none of"),
        ([*L[:2], 7, *L[2:]], "the CNN has 7.0 in the place of a layer"),
        ([*L[:4], relu()], "the CNN ends in nn.View and nn.ReLU"),
        ([*L[:3], *L[4:]], "layer 4 of the CNN, nn.Linear: it reads vectors, and gets (2, 28, 28)"),
        ([convolution(4, 2), *L[1:]], "layer 1 of the CNN, nn.SpatialConvolution: it reads 4 channels, and gets 3"),
        ([*L[:4], linear(99, 5), relu()], "layer 5 of the CNN, nn.Linear: it reads 99 values, and gets 1568"),
        ([*L[:3], view(2, -1), *L[4:]], "layer 4 of the CNN, nn.View: it reshapes (2, 28, 28) to [2, -1]"),
        ([*L[:3], view(1567), *L[4:]], "to [1567]"),
        ([*L[:3], Obj("nn.View", {}), *L[4:]], "to None"),
        ([L[0], Obj("nn.Threshold", {}), *L[2:]], "layer 2 of the CNN, nn.Threshold, is none of"),
        ([L[0], Obj("nn.ReLU", {"threshold": 1}), *L[2:]], "layer 2 of the CNN, nn.ReLU: its threshold is not 0"),
        ([*L[:2], pooling(300, 2), *L[3:]], "a window of [300, 300]"),
        ([*L[:2], pooling(2, 0), *L[3:]], "in steps of [0, 0]"),
        ([*L[:2], pooling(0, 1), *L[3:]], "a window of [0, 0]"),
        ([*L[:2], pooling(2, 2.5), *L[3:]], "dH of nn.SpatialMaxPooling is 2.5"),
        ([*L[:2], pooling(2, -2), *L[3:]], "dH of nn.SpatialMaxPooling is -2.0"),
        ([convolution(3, 2, kW=7), *L[1:]], "is of shape (2, 3, 3, 5); it should be of shape (2, 3, 3, 7)"),
        ([convolution(3, 2, bias=weights(0, 3)), *L[1:]], "bias of nn.SpatialConvolution is of shape (3,)"),
        ([convolution(3, 2, weight="none"), *L[1:]], "weight of nn.SpatialConvolution is 'none'"),
        ([convolution(3, 2, groups=2), *L[1:]], "its 3 channels cannot be in 2 groups"),
        ([*L[:4], Obj("nn.Linear", {"weight": REPEATED}), relu()], "repeats itself"),
        ([*L[:4], Obj("nn.Linear", {}), relu()], "its weight is no matrix"),
        ([*L[:4], Obj("nn.Dropout", {"p": 1}), *L[4:]], "layer 5 of the CNN, nn.Dropout: p of nn.Dropout is 1.0"),
        (small_cnn(encoding=6), "the CNN gives 6 values and the language model reads 5"),
    ],
)  # fmt: skip
def test_a_cnn_that_cannot_be_read_is_refused_by_its_layer(imported: Import, cnn: list[Obj], reason: str) -> None:
    refused(imported, reason, cnn)


def without(name: str) -> Obj:
    model = lstm()
    nodes = model.fields["core"].fields["forwardnodes"]
    for node in nodes.values():
        if node.fields["data"]["annotations"].get("name") == name:
            del node.fields["data"]["module"]
    return model


def changed(**fields: Any) -> Obj:
    model = lstm()
    model.fields |= fields
    return model


@pytest.mark.parametrize(
    ("lm", "reason"),
    [
        (without("h2h_1"), "h2h_1 of the language model should be an nn.Linear, and is missing"),
        (changed(num_layers=2), "i2h_2 of the language model"),
        (changed(rnn_size=5), "weight of nn.Linear is of shape (16, 5); it should be of shape (20, 5)"),
        (changed(vocab_size=7), "weight of nn.LookupTable is of shape (7, 5); it should be of shape (8, 5)"),
        (changed(vocab_size=None), "vocab_size of nn.LanguageModel is None"),
        (changed(seq_length=-1), "seq_length of nn.LanguageModel is -1.0"),
        (changed(num_layers=0), "layers is 0"),
        (changed(core=None), "lm has no table core"),
        (changed(lookup_table=Obj("nn.LookupTable", {})), "weight of nn.LookupTable is None"),
    ],
)
def test_a_language_model_that_cannot_be_read_is_refused(imported: Import, lm: Obj, reason: str) -> None:
    refused(imported, reason, lm=lm)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (WORDS[:-1], "the vocabulary has 5 words and the language model 6"),
        ([*WORDS, "extra"], "the vocabulary has 7 words and the language model 6"),
        ([*WORDS[:-1], "a"], "'a' more than once"),
        ([*WORDS[:-1], ""], "empty"),
        ([*WORDS[:-1], "two words"], "white space"),
        ([*WORDS[:-1], b"\xff"], "no printable text"),
        ([*WORDS[:-1], 7], "no printable text"),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_refused(imported: Import, words: list[Any], reason: str) -> None:
    refused(imported, reason, words=words)


@pytest.mark.parametrize("keys", [["0", "1", "2", "3", "4", "5"], ["1", "2", "3", "4", "5", "7"], ["1"] * 6])
def test_ids_that_leave_gaps_are_refused(imported: Import, keys: list[str]) -> None:
    refused(imported, "the ids should be 1 to 6", vocab=dict(zip(keys, WORDS, strict=True)))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"protos": None}, "the file has no table protos, so it is no checkpoint of neuraltalk2"),
        ({"protos": {"cnn": sequential()}}, "protos has no table lm"),
        ({"protos": {"lm": lstm()}}, "the CNN is None"),
        ({"protos": {"lm": lstm(), "cnn": Obj("nn.Parallel", {})}}, "the CNN is <nn.Parallel of 0>"),
        ({"vocab": None}, "the file has no table vocab"),
        ({"opt": 3}, "the file has no table opt"),
        ({"iter": "now"}, "iter of a table is 'now'"),
    ],
)
def test_a_file_of_something_else_is_refused(imported: Import, fields: dict[str, Any], reason: str) -> None:
    refused(imported, reason, **fields)


def test_a_sequential_that_holds_itself_is_refused(imported: Import) -> None:
    endless = sequential(*small_cnn())
    endless.fields["modules"][1] = endless
    refused(imported, "more than 10,000 layers", [endless])


def test_a_plain_value_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "x.t7").write_bytes(dumps("text"))
    with pytest.raises(CheckpointError, match="no checkpoint of neuraltalk2"):
        importer.read(tmp_path / "x.t7")


def test_damaged_checkpoints_end_in_an_error_or_are_read(tmp_path: Path) -> None:
    whole = dumps(saved())
    start = whole.index(b"protos")
    places = [i for i in range(len(whole)) if i < 400 or start <= i < start + 300 or i > len(whole) - 2500]
    random = np.random.default_rng(3)
    errors = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[random.choice(places)] = random.choice([random.integers(256), 0, 255])
        (tmp_path / "x.t7").write_bytes(damaged)
        try:
            importer.read(tmp_path / "x.t7")
        except CheckpointError:
            errors += 1
    assert 20 < errors < 300
