"""The captioner: from images to captions."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import WORDS, picture
from tolerances import needs_bfloat16, same_log_prob

from configs.search import Search
from model.captioner import Caption, Captioner
from model.device import can_compute_in
from model.errors import OptionError

SEARCH = Search(beam_size=3, num_candidates=2, max_tokens=5)


@pytest.fixture(scope="module")
def loaded(captioner: Path) -> Captioner:
    return Captioner.load(captioner, device="cpu")


def test_candidates_are_words_of_the_vocabulary_best_first(loaded: Captioner) -> None:
    for caption in loaded.caption([picture(1), picture(2, 50, 61)], SEARCH):
        one, two = caption.candidates
        assert caption.text == one.text != two.text
        assert 0 >= one.log_prob > two.log_prob
        for candidate in (one, two):
            assert set(candidate.text.split()) <= set(WORDS) - {"UNK"}
            assert candidate.num_tokens == len(candidate.text.split()) + 1


def test_a_captioner_travels_to_other_processes(loaded: Captioner) -> None:
    images = [picture(seed) for seed in range(3)]
    assert pickle.loads(pickle.dumps(loaded)).caption(images, SEARCH) == loaded.caption(images, SEARCH)


@pytest.mark.parametrize(
    "search",
    [SEARCH, Search(method="greedy", max_tokens=5), Search(method="sample", max_tokens=5, num_candidates=3)],
    ids=lambda search: search.method,
)
def test_a_caption_does_not_depend_on_its_batch(loaded: Captioner, search: Search) -> None:
    images = [picture(seed) for seed in range(32)]
    together = loaded.caption(images, search)
    assert len({caption.text for caption in together}) > 1
    for size in (1, 7):
        batches = [loaded.caption(images[i : i + size], search) for i in range(0, len(images), size)]
        assert_same_captions([caption for batch in batches for caption in batch], together)


KERNELS = [("SSE41", "default", 1), ("AVX2", "avx2", 2)]  # of oneDNN, of ATen; threads


@pytest.mark.parametrize(("onednn", "aten", "threads"), KERNELS)
def test_a_caption_does_not_depend_on_the_kernels(  # noqa: PLR0917
    loaded: Captioner, captioner: Path, tmp_path: Path, onednn: str, aten: str, threads: int
) -> None:
    code = (
        "import pickle, sys; from conftest import picture; from model.captioner import Captioner;"
        "from test_captioner import SEARCH, Path; captioner = Captioner.load(sys.argv[1], device='cpu');"
        "found = captioner.caption([picture(seed) for seed in range(32)], SEARCH);"
        "Path(sys.argv[2]).write_bytes(pickle.dumps(found))"
    )
    kernels = {"ONEDNN_MAX_CPU_ISA": onednn, "ATEN_CPU_CAPABILITY": aten, "OMP_NUM_THREADS": str(threads)}
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(
        [sys.executable, "-c", code, captioner, tmp_path / "found"], env=os.environ | kernels | path, check=True
    )
    theirs = pickle.loads((tmp_path / "found").read_bytes())
    assert_same_captions(theirs, loaded.caption([picture(seed) for seed in range(32)], SEARCH))


def assert_same_captions(ours: list[Caption], theirs: list[Caption]) -> None:
    """Asserts equal captions, with log-probabilities as close as `same_log_prob` demands."""
    for one, other in zip(ours, theirs, strict=True):
        assert [c.text for c in one.candidates] == [c.text for c in other.candidates]
        for ours_, theirs_ in zip(one.candidates, other.candidates, strict=True):
            assert ours_.log_prob == same_log_prob(theirs_.log_prob, theirs_.num_tokens)


def test_the_order_of_images_is_that_of_their_captions(loaded: Captioner) -> None:
    images = [picture(seed) for seed in range(5)]
    texts = [caption.text for caption in loaded.caption(images, SEARCH)]
    assert [caption.text for caption in loaded.caption(images[::-1], SEARCH)] == texts[::-1]


def test_arrays_are_captioned_as_images_are(loaded: Captioner) -> None:
    images = [picture(1, 30, 70), picture(2)]
    assert loaded.caption([np.asarray(image) for image in images], SEARCH) == loaded.caption(images, SEARCH)


def test_pixels_are_those_of_the_preprocessing(loaded: Captioner) -> None:
    images = [picture(1, 30, 70), picture(2)]
    pixels = np.stack([loaded.preprocessing.pixels(image) for image in images])
    assert loaded.caption_pixels(pixels, SEARCH) == loaded.caption(images, SEARCH)


def test_no_images_have_no_captions(loaded: Captioner) -> None:
    assert loaded.caption([]) == []


def test_the_default_search_is_a_beam(loaded: Captioner) -> None:
    assert loaded.caption([picture(1)]) == loaded.caption([picture(1)], Search(method="beam", beam_size=5))


@needs_bfloat16
def test_half_precision_says_nearly_the_same(captioner: Path, loaded: Captioner) -> None:
    half = Captioner.load(captioner, device="cpu", dtype="bfloat16")
    assert half.dtype == torch.bfloat16
    search = Search(beam_size=1, max_tokens=1)
    ours, theirs = (c.caption([picture(seed) for seed in range(4)], search) for c in (half, loaded))
    for one, other in zip(ours, theirs, strict=True):
        assert one.candidates[0].log_prob == pytest.approx(other.candidates[0].log_prob, rel=0.2, abs=0.2)
    assert ours != theirs


@pytest.mark.parametrize("options", [{"device": "abacus"}, {"dtype": "float13"}])
def test_a_device_or_dtype_there_is_not_is_refused(captioner: Path, options: dict[str, str]) -> None:
    with pytest.raises(OptionError, match=next(iter(options.values()))):
        Captioner.load(captioner, **options)


@pytest.mark.skipif(can_compute_in(torch.float16, torch.device("cpu")), reason="this CPU computes in float16")
def test_a_dtype_that_the_cpu_does_not_compute_in_is_refused(captioner: Path) -> None:
    with pytest.raises(OptionError, match="float32"):
        Captioner.load(captioner, device="cpu", dtype="float16")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has cuda")
def test_cuda_is_refused_where_there_is_none(captioner: Path) -> None:
    with pytest.raises(OptionError, match="try cpu"):
        Captioner.load(captioner, device="cuda")
