"""Beam search in tensors of fixed shape, for devices that compute apart from the host, such as a GPU.

All K beams of an image take every step, finished or not, so no step waits for the device to tell how many are left. A
few steps together are one function of tensors, which can run as a CUDA graph. Between two such functions the host asks
which images are over; when few are left, they move to smaller tensors, of one of a few sizes.

Letters: B images, K beams, C continuations of a beam that may be chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace

import torch

from model.decoding.beam_search import BeamSearch
from model.decoding.beams import Beams
from model.decoding.hypothesis import Hypothesis
from model.decoding.logits_processors import LogitsProcessor
from model.nn.decoder_state import DecoderState, StepDecoder
from model.vocabulary import END

STEPS_PER_CHECK = 4
"""Steps between two questions whether images are over: an image waits for at most three steps in vain."""
LEAST_IMAGES = 4

Tensors = tuple[torch.Tensor, ...]
Run = Callable[[Hashable, Callable[..., Tensors], Tensors], Tensors]
"""Calls a function of tensors, given a name of it and its arguments; the same name is always the same function.

The results may be overwritten by the next call, unless they are its arguments.
"""


def run_directly(name: Hashable, function: Callable[..., Tensors], tensors: Tensors) -> Tensors:
    """Calls the function; a `Run`."""
    return function(*tensors)


def padded_size(images: int) -> int:
    """Returns the number of images that tensors for some images have room for: 4, 6, 8, 12, 16, 24, 32, 48, …"""
    power = 1 << max(images - 1, LEAST_IMAGES - 1).bit_length()
    return power * 3 // 4 if images <= power * 3 // 4 >= LEAST_IMAGES else power


class StaticBeamSearch:
    """Finds the captions that a `BeamSearch` finds.

    Args:
        beam_search: its options and its rules of choice.
        decoder: the decoder of all batches.
        logits_processor: the rules on the next word.
        run: how functions of tensors are called.
    """

    def __init__(
        self, beam_search: BeamSearch, decoder: StepDecoder, logits_processor: LogitsProcessor, run: Run = run_directly
    ) -> None:
        self._search, self._decoder, self._processor, self._run = beam_search, decoder, logits_processor, run

    def __call__(self, state: DecoderState) -> list[list[Hypothesis]]:
        """Returns the candidates of each image, as `BeamSearch` does.

        Args:
            state: after the images, before START.
        """
        count, device = len(state), state.device
        numbers = torch.arange(padded_size(count), device=device)
        images = numbers.clamp(max=count)  # indices into `results`, whose last row is that of all padding
        beams = self._search.first_beams(len(images), state)
        beams.over[count:] = True
        state = state.repeat_images(numbers.clamp(max=count - 1), self._search.beams)
        results = self._search.first_beams(count + 1, state)
        for first in range(0, self._search.steps, STEPS_PER_CHECK):
            beams, state = self._advance(first, beams, state)
            ongoing = (~beams.over).nonzero().flatten()  # waits for the device
            if not len(ongoing):
                break
            if (size := padded_size(len(ongoing))) < len(images):
                _store(results, images, beams)
                padding = size - len(ongoing)
                kept = torch.cat([ongoing, ongoing[:1].expand(padding)])
                images, beams, state = images[kept], beams.select(kept), state.select_images(kept)
                if padding:
                    images[-padding:], beams.over[-padding:] = count, True
        _store(results, images, beams)
        columns = [values[:count].tolist() for values in results[:4]]
        return [self._search.finished(*values) for values in zip(*columns, strict=True)]

    def _advance(self, first: int, beams: Beams, state: DecoderState) -> tuple[Beams, DecoderState]:
        """Takes the steps from `first` to the next question."""
        num_beams, num_recurrent = len(beams), len(state.recurrent)

        def unpack(tensors: Tensors) -> tuple[Beams, DecoderState]:
            rest = tensors[num_beams:]
            recurrent, memory = rest[:num_recurrent], rest[num_recurrent:-1]
            unpacked = replace(state, recurrent=recurrent, memory=memory, image_index=rest[-1])
            return Beams(*tensors[:num_beams]), unpacked

        def steps(*tensors: torch.Tensor) -> Tensors:
            taken = unpack(tensors)
            for step in range(first, min(first + STEPS_PER_CHECK, self._search.steps)):
                taken = self._step(step, *taken)
            return _pack(*taken)

        return unpack(self._run(first, steps, _pack(beams, state)))

    def _step(self, step: int, beams: Beams, state: DecoderState) -> tuple[Beams, DecoderState]:
        prefixes, live = beams.words.flatten(0, 1), beams.live.unsqueeze(2)
        log_probs, state = self._decoder.step(prefixes[:, step - 1], state)  # at step 0, the last column is START
        self._processor.apply(log_probs, prefixes[:, :step])
        best = self._search.best_words(log_probs)
        shape = (*beams.live.shape, best.indices.shape[1])  # (B, K, C)
        next_words = torch.where(live, best.indices.view(shape), END)
        gains = torch.where(live, best.values.view(shape), -torch.inf)
        gains[:, :, :1].masked_fill_(~live, 0.0)  # finished captions stay as they are
        advanced, beam = self._search.advance(step, beams, next_words, gains, self._decoder.vocabulary_size)
        row = torch.arange(len(beam), device=beam.device).unsqueeze(1) * beam.shape[1] + beam
        kept = [
            torch.where(beams.over.view(-1, *[1] * (old.dim() - 1)), old, new)  # nothing changes once an image is over
            for old, new in zip(beams, advanced, strict=True)
        ]
        return Beams(*kept), state.reorder(row.flatten())


def _pack(beams: Beams, state: DecoderState) -> Tensors:
    return (*beams, *state.recurrent, *state.memory, state.image_index)


def _store(results: Beams, images: torch.Tensor, beams: Beams) -> None:
    """Copies the beams to the rows of their images."""
    for stored, values in zip(results, beams, strict=True):
        stored.index_copy_(0, images, values)
