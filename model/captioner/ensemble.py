"""Captioners that choose each word together.

>>> ensemble = Ensemble.load(["run1/best", "run2/best"], weights=[0.7, 0.3])
>>> ensemble.caption([PIL.Image.open("dog.jpg")])[0].text
'a dog runs through the grass'

Letters: N captions that are being spoken, V vocabulary (END included).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import torch

from model.captioner import checkpoint
from model.captioner.base import Captioning
from model.captioner.captioner import Captioner
from model.decoding.reranking import Views
from model.errors import OptionError, VocabularyError
from model.nn.decoder_state import Speaker, State
from model.vision.preprocessing import Preprocessing
from model.vocabulary import Vocabulary


class Mixture:
    """Several speakers as one: the weighted mean of their probabilities, of one vocabulary.

    Of the probabilities, not of their logarithms: the mean is a distribution as it stands, so log-probabilities stay
    what they say, and a word that one speaker rules out is not ruled out for all.

    Args:
        speakers: in evaluation mode.
        weights: of each, positive; None for equal ones. Only their ratios matter.

    Raises OptionError for weights that are not so.
    """

    def __init__(self, speakers: Sequence[Speaker], weights: Sequence[float] | None = None) -> None:
        given = [1.0] * len(speakers) if weights is None else list(weights)
        if not speakers or len(given) != len(speakers) or not all(0 < weight < math.inf for weight in given):
            raise OptionError(f"weights are {given}; {len(speakers)} captioners need one each, above 0")
        self._speakers = speakers
        self._log_weights = [math.log(weight / sum(given)) for weight in given]
        self.max_tokens = min((speaker.max_tokens for speaker in speakers if speaker.max_tokens), default=0)
        said, seen = zip(*(speaker.state_parts for speaker in speakers), strict=True)
        self.state_parts = sum(said), sum(seen)

    @property
    def vocabulary_size(self) -> int:
        """V."""
        return self._speakers[0].vocabulary_size

    @staticmethod
    def joined(states: Sequence[State]) -> State:
        """One state of those of the speakers."""
        said = tuple(part for state in states for part in state.said)
        return State(said, tuple(part for state in states for part in state.seen), states[0].image)

    def step(self, words: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """As `Speaker.step`."""
        found, states, said, seen = list[torch.Tensor](), list[State](), iter(state.said), iter(state.seen)
        for speaker, log_weight in zip(self._speakers, self._log_weights, strict=True):
            of_captions, of_images = speaker.state_parts
            mine = State(tuple(islice(said, of_captions)), tuple(islice(seen, of_images)), state.image)
            log_probs, after = speaker.step(words, mine)
            found.append(log_probs + log_weight)
            states.append(after)
        return torch.stack(found).logsumexp(0), self.joined(states)


class Ensemble(Captioning):
    """Captioners of one vocabulary, each with its own CNN, decoder and preprocessing. Made by `load`.

    Args:
        captioners: on one device.
        weights: as `Mixture` takes them.
    """

    def __init__(self, captioners: Sequence[Captioner], weights: Sequence[float] | None = None) -> None:
        self._captioners = captioners
        self._mixture = Mixture([captioner.speaker for captioner in captioners], weights)
        require_one_vocabulary({f"captioner {i}": one.vocabulary for i, one in enumerate(captioners, start=1)})
        self.vocabulary, self.device, self.dtype = captioners[0].vocabulary, captioners[0].device, captioners[0].dtype

    @classmethod
    def load(
        cls,
        directories: Sequence[str | Path],
        *,
        weights: Sequence[float] | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
    ) -> Ensemble:
        """The captioners in `directories`, or of these names.

        Args:
            weights: as `Mixture` takes them.
            device, dtype: as `Captioner.load` takes them.

        Raises what `Captioner.load` does, OptionError for weights, VocabularyError where vocabularies differ.
        """
        found = [checkpoint.find(directory) for directory in directories]
        require_one_vocabulary({str(directory): checkpoint.load_vocabulary(directory) for directory in found})
        return cls([Captioner.load(directory, device=device, dtype=dtype) for directory in found], weights)

    @property
    def views(self) -> Sequence[Preprocessing]:
        """As `Captioning.views`."""
        return list(dict.fromkeys(view for captioner in self._captioners for view in captioner.views))

    @property
    def speaker(self) -> Speaker:
        """As `Captioning.speaker`."""
        return self._mixture

    def start(self, views: Views) -> State:
        """As `Captioning.start`."""
        return self._mixture.joined([captioner.start(views) for captioner in self._captioners])


def require_one_vocabulary(vocabularies: Mapping[str, Vocabulary]) -> None:
    """Raises VocabularyError, naming what differs, unless these captioners' words and their order are the same."""
    (first, expected), *others = vocabularies.items()
    for name, vocabulary in others:
        if vocabulary == expected:
            continue
        pairs = enumerate(zip(expected.words, vocabulary.words, strict=False), start=1)
        another = next((f"id {i} is {ours!r} and {theirs!r}" for i, (ours, theirs) in pairs if ours != theirs), "")
        raise VocabularyError(
            f"{first} and {name} have different vocabularies:"
            f" {another or f'{len(expected.words)} and {len(vocabulary.words)} words'};"
            " captioners that speak together need the same, as from one `shardtalk prepare`"
        )
