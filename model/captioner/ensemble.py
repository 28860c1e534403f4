"""Several captioners that predict each word together, by the average of their probabilities.

>>> ensemble = Ensemble.load(["run1/best", "run2/best"], weights=[0.7, 0.3])
>>> ensemble.caption([PIL.Image.open("dog.jpg")])[0].text
'a dog runs through the grass'

Letters: N captions being decoded, V vocabulary (END included).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from configs.captioning import CompileCnn
from model.captioner import checkpoint
from model.captioner.base import BaseCaptioner
from model.captioner.captioner import Captioner
from model.decoding.reranking import PixelsByKey
from model.errors import OptionError, VocabularyError
from model.nn.decoder_state import DecoderState, StepDecoder
from model.vision.preprocessing import Preprocessing
from model.vocabulary import Vocabulary


class EnsembleDecoder:
    """A `StepDecoder` that averages the probabilities of several decoders with one vocabulary, with weights.

    It averages probabilities rather than log-probabilities: their mean is a distribution without renormalisation, so
    log-probabilities keep their meaning, and a word that one decoder rules out is not ruled out for all.

    Args:
        decoders: in evaluation mode.
        weights: a positive weight per decoder; None weighs all alike. Only their ratios matter.

    Raises OptionError for weights that are not positive and finite, or as many as the decoders.
    """

    def __init__(self, decoders: Sequence[StepDecoder], weights: Sequence[float] | None = None) -> None:
        given = [1.0] * len(decoders) if weights is None else list(weights)
        if not decoders or len(given) != len(decoders) or not all(0 < weight < math.inf for weight in given):
            raise OptionError(f"weights are {given}; {len(decoders)} captioners need one each, above 0")
        self._decoders = decoders
        self._log_weights = [math.log(weight / sum(given)) for weight in given]
        self.max_tokens = min((decoder.max_tokens for decoder in decoders if decoder.max_tokens), default=0)
        recurrent, memory = zip(*(decoder.num_state_tensors for decoder in decoders), strict=True)
        self.num_state_tensors = sum(recurrent), sum(memory)

    @property
    def vocabulary_size(self) -> int:
        """V, END included."""
        return self._decoders[0].vocabulary_size

    @staticmethod
    def merge_states(states: Sequence[DecoderState]) -> DecoderState:
        """Concatenates the tensors of the decoders' states, which are of the same captions, into one state."""
        recurrent = tuple(part for state in states for part in state.recurrent)
        memory = tuple(part for state in states for part in state.memory)
        return replace(states[0], recurrent=recurrent, memory=memory)

    def step(self, words: torch.Tensor, state: DecoderState) -> tuple[torch.Tensor, DecoderState]:
        """As `StepDecoder.step`: word ids (N,) and state to log-probabilities (N, V) and a new state."""
        weighted, states = list[torch.Tensor](), list[DecoderState]()
        recurrent, memory = iter(state.recurrent), iter(state.memory)
        for decoder, log_weight in zip(self._decoders, self._log_weights, strict=True):
            num_recurrent, num_memory = decoder.num_state_tensors
            own = replace(
                state, recurrent=tuple(islice(recurrent, num_recurrent)), memory=tuple(islice(memory, num_memory))
            )
            log_probs, after = decoder.step(words, own)
            weighted.append(log_probs + log_weight)
            states.append(after)
        return torch.stack(weighted).logsumexp(0), self.merge_states(states)


class Ensemble(BaseCaptioner):
    """Captioners with the same vocabulary, each with its own CNN, decoder and preprocessing. Made by `load`.

    Args:
        captioners: on the same device.
        weights: as in `EnsembleDecoder`.
        compile_cnn: as in `BaseCaptioner`.
    """

    def __init__(
        self,
        captioners: Sequence[Captioner],
        weights: Sequence[float] | None = None,
        *,
        compile_cnn: CompileCnn = "never",
    ) -> None:
        self._captioners, self._weights = captioners, weights
        self._decoder = EnsembleDecoder([captioner.decoder for captioner in captioners], weights)
        check_same_vocabulary({f"captioner {i}": one.vocabulary for i, one in enumerate(captioners, start=1)})
        first = captioners[0]
        super().__init__(first.vocabulary, first.device, first.dtype, compile_cnn=compile_cnn)

    @classmethod
    def load(
        cls,
        directories: Sequence[str | Path],
        *,
        weights: Sequence[float] | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        compile_cnn: CompileCnn = "never",
    ) -> Ensemble:
        """Loads captioners, each from a directory or by its name in the zoo, as one ensemble.

        Args:
            weights: as in `EnsembleDecoder`.
            device, dtype, compile_cnn: as in `Captioner.load`.

        Raises as `Captioner.load` does, OptionError for invalid weights, VocabularyError if vocabularies differ.
        """
        found = [checkpoint.find(directory) for directory in directories]
        check_same_vocabulary({str(directory): checkpoint.load_vocabulary(directory) for directory in found})
        captioners = [Captioner.load(directory, device=device, dtype=dtype) for directory in found]
        return cls(captioners, weights, compile_cnn=compile_cnn)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the captioners; the rest is built anew where they are unpickled."""
        return partial(Ensemble, compile_cnn=self.compilation.when), (self._captioners, self._weights)

    @property
    def pixel_keys(self) -> Sequence[Preprocessing]:
        """As `BaseCaptioner.pixel_keys`."""
        return list(dict.fromkeys(key for captioner in self._captioners for key in captioner.pixel_keys))

    @property
    def decoder(self) -> StepDecoder:
        """As `BaseCaptioner.decoder`."""
        return self._decoder

    def compile(self, pixels: PixelsByKey) -> None:
        """As `BaseCaptioner.compile`: all of its CNNs."""
        for captioner in self._captioners:
            captioner.compile(pixels)

    def initial_state(self, pixels: PixelsByKey) -> DecoderState:
        """As `BaseCaptioner.initial_state`."""
        return self._decoder.merge_states([captioner.initial_state(pixels) for captioner in self._captioners])


def check_same_vocabulary(vocabularies: Mapping[str, Vocabulary]) -> None:
    """Raises VocabularyError, naming the first difference, unless all captioners have the same words in the same order.

    Args:
        vocabularies: by the name of their captioner.
    """
    (first, expected), *others = vocabularies.items()
    for name, vocabulary in others:
        if vocabulary == expected:
            continue
        pairs = enumerate(zip(expected.words, vocabulary.words, strict=False), start=1)
        another = next((f"id {i} is {ours!r} and {theirs!r}" for i, (ours, theirs) in pairs if ours != theirs), "")
        raise VocabularyError(
            f"{first} and {name} have different vocabularies:"
            f" {another or f'{len(expected.words)} and {len(vocabulary.words)} words'};"
            " an ensemble needs one vocabulary, as `shardtalk prepare` writes"
        )
