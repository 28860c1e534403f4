"""From pixels to captions, whoever speaks: what a captioner and an ensemble of them have in common."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from model.decoding.hypothesis import Hypothesis
from model.decoding.reranking import Scorer, Views, reranked
from model.decoding.search import Search
from model.decoding.sequence_log_probs import token_log_probs
from model.device import autocast
from model.errors import OptionError
from model.nn.decoder_state import Speaker, State
from model.vision.preprocessing import Pixels, Preprocessing
from model.vocabulary import Vocabulary


@dataclass(frozen=True)
class Candidate:
    """A caption and how probable the captioner finds it."""

    text: str
    log_prob: float
    """Sum of the natural-log probabilities of its tokens."""
    num_tokens: int
    """Its words and END."""
    token_log_probs: list[float] | None = None
    """Of each word and END, where the search was asked for `token_probs`."""


@dataclass(frozen=True)
class Caption:
    """The captions found for an image."""

    candidates: list[Candidate]
    """Best first, at least one."""

    @property
    def text(self) -> str:
        """The best caption."""
        return self.candidates[0].text


class Captioning(ABC):
    """Captions images: a `Captioner` or an `Ensemble`."""

    vocabulary: Vocabulary
    device: torch.device
    dtype: torch.dtype

    @property
    @abstractmethod
    def views(self) -> Sequence[Preprocessing]:
        """The ways in which it looks at an image, each once (`Preprocessing.view`)."""

    @property
    @abstractmethod
    def speaker(self) -> Speaker:
        """Who says the next word."""

    @abstractmethod
    def start(self, views: Views) -> State:
        """The speaker's state after images, given as (B, image_size, image_size, 3) uint8 pixels of each view."""

    def caption(
        self, images: Sequence[Image.Image | Pixels], search: Search | None = None, scorer: Scorer | None = None
    ) -> list[Caption]:
        """Captions of PIL images, or of (H, W, 3) uint8 RGB arrays of any size, in one batch.

        Args:
            search: None is `Search()`.
            scorer: puts the candidates into another order.
        """
        if not images:
            return []
        opened = [image if isinstance(image, Image.Image) else Image.fromarray(image) for image in images]
        ways = dict.fromkeys([*self.views, *(scorer.views if scorer else ())])
        views = {way: np.stack([way.pixels(image) for image in opened]) for way in ways}
        return self.caption_pixels(views, search, scorer)

    def caption_pixels(
        self, pixels: Pixels | Views, search: Search | None = None, scorer: Scorer | None = None
    ) -> list[Caption]:
        """Captions of (B, image_size, image_size, 3) uint8 pixels that `Preprocessing.pixels` gave.

        Args:
            pixels: of each view, those of the scorer, too; or the pixels alone where there is one view.
            search, scorer: as `caption` takes them.
        """
        search, views = search or Search(), pixels if isinstance(pixels, Mapping) else self._only_view(pixels)
        seen = views[self.views[0]]
        seeds = torch.tensor([zlib.crc32(image.data) for image in seen]) if search.method == "sample" else None
        with torch.inference_mode(), autocast(self.device, self.dtype):
            state = self.start(views)
            found = search.from_state(
                self.speaker,
                state,
                image_seeds=seeds,
                unsayable=self.vocabulary.unsayable,
                endings=self.vocabulary.bad_endings,
            )
            if scorer:
                found = reranked(found, scorer(views, found))
            each = token_log_probs(self.speaker, state, found) if search.token_probs else None
        return [
            Caption([self._candidate(h, each[i][j] if each else None) for j, h in enumerate(hypotheses)])
            for i, hypotheses in enumerate(found)
        ]

    def _candidate(self, hypothesis: Hypothesis, each: list[float] | None) -> Candidate:
        return Candidate(self.vocabulary.decode(hypothesis.words), hypothesis.log_prob, hypothesis.num_tokens, each)

    def _only_view(self, pixels: Pixels) -> Views:
        if len(self.views) > 1:
            raise OptionError(f"images are looked at in {len(self.views)} ways; give the pixels of each")
        return {self.views[0]: pixels}
