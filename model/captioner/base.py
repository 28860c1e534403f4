"""The base class of captioners: from pixels to captions, by one network or an ensemble of them.

Letters: B images.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from configs.captioning import CompileCnn
from configs.search import Search
from model.captioner.compilation import Compilation
from model.cuda_graphs import CudaGraphs
from model.cuda_streams import CudaStreams, Timing
from model.decoding.hypothesis import Hypothesis
from model.decoding.reranking import PixelsByKey, Reranker, rerank
from model.decoding.search import CaptionSearch
from model.decoding.sequence_log_probs import token_log_probs
from model.device import autocast
from model.errors import OptionError
from model.nn.decoder_state import DecoderState, StepDecoder
from model.vision.preprocessing import Pixels, Preprocessing
from model.vocabulary import Vocabulary


@dataclass(frozen=True)
class Candidate:
    """A caption and its log-probability."""

    text: str
    log_prob: float | None = None
    """Sum of the natural-log probabilities of its tokens, END included. None if the captioner does not know it."""
    num_tokens: int | None = None
    """Number of its tokens: of a network of Shardtalk, its words, plus one for END. None if unknown."""
    token_log_probs: list[float] | None = None
    """Natural-log probability of each word and of END; None unless the search has `token_probs`."""


@dataclass(frozen=True)
class Caption:
    """The captions that a search, or another captioner, found for an image."""

    candidates: Sequence[Candidate]
    """The captions, best first; at least one."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Values of the further columns that a captioner declares (`ImageCaptioner.columns`), by name."""

    @property
    def text(self) -> str:
        """The best caption."""
        return self.candidates[0].text


@dataclass(frozen=True)
class EncodedPixels:
    """B images that are encoded, or will be as soon as the device has done so."""

    pixels: PixelsByKey
    state: DecoderState
    """The decoder's state before START."""
    timing: Timing | None
    """The times when the device begins and ends; None on devices that compute at once."""


class BaseCaptioner(ABC):
    """Captions images: a `Captioner` or an `Ensemble`.

    Args:
        vocabulary: that of the decoder.
        device: the device on which all of it is.
        dtype: precision of matrix products.
        compile_cnn: when its CNN is compiled: "always" for the first batch, "auto" on a GPU after minutes of its work.
    """

    def __init__(
        self, vocabulary: Vocabulary, device: torch.device, dtype: torch.dtype, *, compile_cnn: CompileCnn = "never"
    ) -> None:
        self.vocabulary, self.device, self.dtype = vocabulary, device, dtype
        self._streams = CudaStreams(device) if device.type == "cuda" else None
        self.compilation = Compilation(compile_cnn, device)
        self._searches: dict[Search, CaptionSearch] = {}

    @property
    @abstractmethod
    def pixel_keys(self) -> Sequence[Preprocessing]:
        """The distinct preprocessings, as `Preprocessing.pixel_key`, that its pixels must come from."""

    @property
    @abstractmethod
    def decoder(self) -> StepDecoder:
        """The decoder that predicts the next word of a caption."""

    @abstractmethod
    def initial_state(self, pixels: PixelsByKey) -> DecoderState:
        """Encodes B images; returns the decoder's state before START.

        Args:
            pixels: (B, image_size, image_size, 3) uint8 by pixel key.
        """

    @abstractmethod
    def compile(self, pixels: PixelsByKey) -> None:
        """Compiles the CNN for batches of the size of this one, which takes a minute on a GPU.

        Args:
            pixels: as for `initial_state`.

        Raises OptionError where that fails, as without a C compiler.
        """

    def caption(
        self, images: Sequence[Image.Image | Pixels], search: Search | None = None, reranker: Reranker | None = None
    ) -> list[Caption]:
        """Captions images as one batch.

        Args:
            images: PIL images, or (H, W, 3) uint8 RGB arrays of any size.
            search: None is `Search()`.
            reranker: sorts the candidates anew; None keeps the order of the search.
        """
        if not images:
            return []
        opened = [image if isinstance(image, Image.Image) else Image.fromarray(image) for image in images]
        keys = dict.fromkeys([*self.pixel_keys, *(reranker.pixel_keys if reranker else ())])
        pixels = {key: np.stack([key.pixels(image) for image in opened]) for key in keys}
        return self.caption_pixels(pixels, search, reranker)

    def caption_pixels(
        self, pixels: Pixels | PixelsByKey, search: Search | None = None, reranker: Reranker | None = None
    ) -> list[Caption]:
        """Captions preprocessed images as one batch.

        Args:
            pixels: (B, image_size, image_size, 3) uint8 from `Preprocessing.pixels`, by pixel key, including those of
                the reranker; or the array alone if there is one pixel key.
            search, reranker: as in `caption`.

        Raises OptionError for an array where there are several pixel keys.
        """
        return self.caption_encoded(self.encode(pixels), search, reranker)

    def encode(self, pixels: Pixels | PixelsByKey) -> EncodedPixels:
        """Computes the part of `caption_pixels` that needs no search. On a CUDA device it does not wait for the result.

        Captioning other images meanwhile is allowed: the device then does both at once.

        Args:
            pixels: as in `caption_pixels`; unchanged until they are captioned.

        Raises OptionError for an array where there are several pixel keys.
        """
        by_key = pixels if isinstance(pixels, Mapping) else self._by_only_key(pixels)
        with torch.inference_mode(), autocast(self.device, self.dtype):
            self.compilation.run_when_due(partial(self.compile, by_key))
            with self._streams.encoding() if self._streams else nullcontext() as timing:
                return EncodedPixels(by_key, self.initial_state(by_key), timing)

    def caption_encoded(
        self, images: EncodedPixels, search: Search | None = None, reranker: Reranker | None = None
    ) -> list[Caption]:
        """Captions images that `encode` returned; each only once.

        Args:
            search, reranker: as in `caption`.
        """
        search, by_key, state = search or Search(), images.pixels, images.state
        first = by_key[self.pixel_keys[0]]
        seeds = torch.tensor([zlib.crc32(image.data) for image in first]) if search.method == "sample" else None
        tensors = (*state.recurrent, *state.memory, state.image_index)
        streams, timing = self._streams, images.timing
        searching = streams.searching(timing, tensors) if streams and timing else nullcontext()
        with torch.inference_mode(), autocast(self.device, self.dtype), searching:
            hypotheses = self._prepared(search)(state, seeds)
            if reranker:
                hypotheses = rerank(hypotheses, reranker(by_key, hypotheses))
            each = token_log_probs(self.decoder, state, hypotheses) if search.token_probs else None
        if timing:
            self.compilation.count(timing.seconds())
        return [
            Caption([self._candidate(h, each[i][j] if each else None) for j, h in enumerate(candidates)])
            for i, candidates in enumerate(hypotheses)
        ]

    def _prepared(self, search: Search) -> CaptionSearch:
        """Returns the search with this captioner's decoder, as it was built the first time."""
        if search not in self._searches:
            self._searches[search] = CaptionSearch(
                search,
                self.decoder,
                self.device,
                suppressed_ids=self.vocabulary.suppressed_ids,
                forbidden_final_ids=self.vocabulary.forbidden_final_ids,
                run=CudaGraphs() if self.device.type == "cuda" else None,
            )
        return self._searches[search]

    def _candidate(self, hypothesis: Hypothesis, each: list[float] | None) -> Candidate:
        return Candidate(self.vocabulary.decode(hypothesis.words), hypothesis.log_prob, hypothesis.num_tokens, each)

    def _by_only_key(self, pixels: Pixels) -> PixelsByKey:
        if len(self.pixel_keys) > 1:
            raise OptionError(f"the captioners have {len(self.pixel_keys)} different preprocessings; give a mapping")
        return {self.pixel_keys[0]: pixels}
