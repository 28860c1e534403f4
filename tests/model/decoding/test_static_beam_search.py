"""Beam search in tensors of fixed shape finds what beam search does, without waiting for the device at each step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

import pytest
import torch
from brute_force import all_captions, unruled
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx.experimental import _config as fx_config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from configs.search import Search
from model.captioner.ensemble import EnsembleDecoder
from model.cuda_graphs import CudaGraphs
from model.decoding.search import CaptionSearch, Hypothesis, generate_from_state
from model.decoding.static_beam_search import STEPS_PER_CHECK, Run, Tensors, padded_size, run_directly
from model.nn.decoder import Decoder
from model.nn.decoder_state import DecoderState, StepDecoder
from model.nn.frozen_decoder import frozen_decoder

V, E, H, P = 9, 8, 6, 4
SUPPRESSED, FINAL = (4,), (2, 3)


def decoder(seed: int, *, heads: int = 0, layers: int = 1) -> Decoder:
    torch.manual_seed(seed)
    made = Decoder(V, E, H, layers=layers, attention_heads=heads).double().eval().requires_grad_(False)
    for parameter in made.parameters():
        parameter.data.mul_(4)  # so that captions differ
    return made


def images(seed: int, count: int, *, heads: int = 0) -> torch.Tensor:
    shape = (count, 1 + P, E) if heads else (count, E)
    return 3 * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def statically(search: Search, speaker: StepDecoder, state: DecoderState, run: Run = run_directly) -> CaptionSearch:
    return CaptionSearch(search, speaker, state.device, suppressed_ids=SUPPRESSED, forbidden_final_ids=FINAL, run=run)


def assert_same(found: list[list[Hypothesis]], expected: list[list[Hypothesis]]) -> None:
    assert [[h.words for h in each] for each in found] == [[h.words for h in each] for each in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert [h.log_prob for h in ours] == pytest.approx([h.log_prob for h in theirs], abs=1e-9)


RULED = {
    "rules": Search(beam_size=3, no_bad_endings=True, no_immediate_repeat=True, min_tokens=2),
    "groups": Search(beam_size=4, num_beam_groups=2, num_candidates=3),
    "greedy": Search(method="greedy"),
}

searches = st.builds(
    lambda groups, width, **options: Search(beam_size=groups * width, num_beam_groups=groups, **options),
    groups=st.integers(1, 3),
    width=st.integers(1, 3),
    max_tokens=st.integers(3, 11),
    length_penalty=st.sampled_from([0.0, 0.7]),
    diversity_penalty=st.sampled_from([0.2, 3.0]),
    no_repeat_ngram_size=st.sampled_from([0, 2, 3]),
    no_immediate_repeat=st.booleans(),
    no_bad_endings=st.booleans(),
    min_tokens=st.integers(0, 3),
).flatmap(lambda search: st.builds(replace, st.just(search), num_candidates=st.integers(1, search.beam_size)))


@settings(max_examples=60, deadline=None)
@given(search=searches, seed=st.integers(0, 999), count=st.integers(1, 19), heads=st.sampled_from([0, 2]))
def test_captions_are_those_of_beam_search(search: Search, seed: int, count: int, heads: int) -> None:
    speaker = decoder(seed, heads=heads, layers=1 + seed % 2)
    state = speaker.initial_state(images(seed, count, heads=heads))
    expected = generate_from_state(
        search, speaker, state, suppressed_ids=SUPPRESSED, forbidden_final_ids=FINAL if search.no_bad_endings else ()
    )
    assert_same(statically(search, speaker, state)(state), expected)


@pytest.mark.parametrize("power", [0.0, 0.7])
def test_beams_of_full_width_are_exhaustive(power: float) -> None:
    torch.manual_seed(6)
    speaker = Decoder(4, E, H).double().eval().requires_grad_(False)
    for parameter in speaker.parameters():
        parameter.data.mul_(4)
    search = unruled(beam_size=200, max_tokens=3, num_candidates=7, length_penalty=power)
    state = speaker.initial_state(images(1, 3))
    for embedding, found in zip(
        images(1, 3), CaptionSearch(search, speaker, state.device, run=run_directly)(state), strict=True
    ):
        scored = all_captions(speaker, embedding, 3)
        best = sorted(scored.items(), key=lambda item: -item[1] / (len(item[0]) + 1) ** power)[:7]
        assert [tuple(hypothesis.words) for hypothesis in found] == [words for words, _ in best]


def test_an_ensembles_captions_are_those_of_beam_search() -> None:
    speakers = [decoder(1, heads=2), decoder(2)]
    speaker = EnsembleDecoder(speakers, [0.7, 0.3])
    regions = images(3, 5, heads=2)
    state = speaker.merge_states([speakers[0].initial_state(regions), speakers[1].initial_state(regions[:, 0])])
    search = Search(beam_size=3, max_tokens=9, num_candidates=2)
    expected = generate_from_state(search, speaker, state, suppressed_ids=SUPPRESSED)
    assert_same(statically(search, speaker, state)(state), expected)


class Replayed:
    """A `Run` with the memory of CUDA graphs: fixed arguments, and results that the next call overwrites."""

    def __init__(self) -> None:
        self.calls = Counter[Hashable]()
        self._arguments: dict[Hashable, Tensors] = {}
        self._results: list[torch.Tensor] = []

    def __call__(self, name: Hashable, function: Callable[..., Tensors], tensors: Tensors) -> Tensors:
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in tensors)
        self.calls[name, shapes] += 1
        arguments = self._arguments.setdefault(shapes, tuple(tensor.clone() for tensor in tensors))
        for argument, tensor in zip(arguments, tensors, strict=True):
            argument.copy_(tensor)
        for stale in self._results:
            stale.fill_(1)
        results = function(*arguments)
        self._results = [result for result in results if not any(result is argument for argument in arguments)]
        return results


def test_results_may_be_overwritten_by_the_next_call() -> None:
    speaker, run = decoder(7, heads=2), Replayed()
    search = Search(beam_size=3, max_tokens=11)
    prepared = statically(search, speaker, speaker.initial_state(images(0, 2, heads=2)), run)
    for seed, count in enumerate((17, 9, 17)):
        state = speaker.initial_state(images(seed, count, heads=2))
        assert_same(prepared(state), generate_from_state(search, speaker, state, suppressed_ids=SUPPRESSED))
    assert len({shapes for _, shapes in run.calls}) > 2  # few images are left at the end
    assert max(run.calls.values()) > 1


class Operators(TorchDispatchMode):
    """Counts operators by the devices of their tensors, and those for whose result the host must wait."""

    def __init__(self) -> None:
        super().__init__()
        self.devices, self.waits = Counter[tuple[str, ...]](), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [one for one in tree_leaves((args, kwargs, result)) if isinstance(one, torch.Tensor)]
        self.devices[tuple(sorted({tensor.device.type for tensor in tensors}))] += 1
        masked = func is torch.ops.aten.index.Tensor and any(
            one is not None and one.dtype == torch.bool for one in args[1]
        )
        self.waits += masked or func in (torch.ops.aten.nonzero.default, torch.ops.aten._local_scalar_dense.default)
        return result


def test_the_host_asks_every_few_steps_whether_images_are_over() -> None:
    speaker, search = decoder(5, heads=2), Search(beam_size=3, max_tokens=20, min_tokens=20)
    state = speaker.initial_state(images(0, 7, heads=2))
    with Operators() as static:
        statically(search, speaker, state)(state)
    with Operators() as compact:
        generate_from_state(search, speaker, state)
    assert static.waits == -(-21 // STEPS_PER_CHECK)
    assert compact.waits > 21


@pytest.mark.parametrize("search", RULED.values(), ids=RULED)
@fx_config.patch(meta_nonzero_assume_all_nonzero=True)  # no image is over
def test_steps_need_no_value_of_a_tensor(search: Search) -> None:
    first_steps: list[Hashable] = []

    def counted(name: Hashable, function: Callable[..., Tensors], tensors: Tensors) -> Tensors:
        first_steps.append(name)
        with Operators() as operators:
            results = function(*tensors)
        assert list(operators.devices) == [("meta",)]  # whose tensors have no values, and nothing comes from the host
        return results

    made = decoder(5, heads=2, layers=2).float().to("meta")
    state = made.initial_state(torch.empty(5, 1 + P, E, device="meta"))
    with pytest.raises(NotImplementedError, match="meta"):  # when the captions are read, in the end
        statically(search, frozen_decoder(made, dtype=torch.float32), state, counted)(state)
    assert first_steps == list(range(0, search.max_tokens + 1, STEPS_PER_CHECK))


@pytest.mark.cuda
@pytest.mark.parametrize("search", RULED.values(), ids=RULED)
def test_steps_run_as_cuda_graphs(search: Search, cuda: torch.device) -> None:
    speaker = frozen_decoder(decoder(5, heads=2, layers=2).float().to(cuda), dtype=torch.float32)
    graphs = CudaGraphs()

    def without_waiting(name: Hashable, function: Callable[..., Tensors], tensors: Tensors) -> Tensors:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return function(*tensors)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    directly, replayed = None, None
    for seed, count in enumerate((17, 9, 17, 17)):
        with torch.inference_mode():
            state = (
                decoder(5, heads=2, layers=2)
                .float()
                .to(cuda)
                .initial_state(images(seed, count, heads=2).float().to(cuda))
            )
        directly = directly or statically(search, speaker, state, without_waiting)
        replayed = replayed or statically(search, speaker, state, graphs)
        found, expected = replayed(state), directly(state)
        assert [[h.words for h in each] for each in found] == [[h.words for h in each] for each in expected]
    assert len(graphs) > 1


@pytest.mark.parametrize("count", [1, 4, 5, 7, 31, 33, 48, 49, 200, 256, 300])
def test_padding_is_at_most_half(count: int) -> None:
    assert count <= padded_size(count) <= max(4, 1.5 * count)
    assert padded_size(padded_size(count)) == padded_size(count)
