"""Shardtalk's own networks behind the protocol of captioners: one, or an ensemble, with search and reranking."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from configs.captioning import CompileCnn
from configs.rerank import Rerank
from configs.search import Search
from model.captioner import checkpoint
from model.captioner.base import BaseCaptioner, Caption, EncodedPixels
from model.captioner.ensemble import check_same_vocabulary
from model.captioner.metadata import read_metadata
from model.decoding.reranking import PixelsByKey, Reranker
from model.errors import OptionError
from pipeline.captioners import captioner_store
from pipeline.captioners.protocol import ImageCaptioner
from pipeline.captioners.reranking import build_reranker
from pipeline.errors import CaptionerError
from pipeline.schema import TOKEN_PROBS


class NetworkCaptioner(ImageCaptioner):
    """One network, or an ensemble of several.

    Args:
        captioners: directory, name or URL of each network.
        search: options of the search.
        weights: weights of the networks of an ensemble; empty for equal ones.
        rerank: options of reranking.
        dtype, compile_cnn: as for `Captioner.load`.

    Raises CheckpointError for anything that is no captioner, VocabularyError if their vocabularies differ.
    """

    is_thread_safe = may_be_tried = True

    def __init__(
        self,
        captioners: Sequence[str],
        search: Search = Search(),  # noqa: B008
        *,
        weights: Sequence[float] = (),
        rerank: Rerank = Rerank(),  # noqa: B008
        dtype: str = "auto",
        compile_cnn: CompileCnn = "never",
    ) -> None:
        self._searching = [captioner_store.find(captioner) for captioner in captioners]
        self._reranking = [captioner_store.find(rerank.captioner)] if rerank.captioner else []
        found = [*self._searching, *self._reranking]
        for directory in found:
            checkpoint.check(directory)
        if len(found) > 1:
            check_same_vocabulary({str(path): checkpoint.load_vocabulary(path) for path in found})
        self.inputs = [checkpoint.load_preprocessing(directory) for directory in found]
        self.columns = pa.schema([TOKEN_PROBS] if search.token_probs else [])
        self._locations = [_location_for_workers(captioner) for captioner in captioners]
        self._search, self._dtype, self._compile_cnn = search, dtype, compile_cnn
        self._weights = list(weights) or [1 / len(captioners)] * len(captioners)
        self._rerank = replace(rerank, captioner=_location_for_workers(rerank.captioner))
        self._network: BaseCaptioner | None = None
        self._reranker: Reranker | None = None

    @property
    def name(self) -> str:
        """The names of its networks."""
        return " + ".join(directory.name for directory in self._searching)

    @property
    def identity(self) -> str:
        """Its settings as a text."""
        return json.dumps(self.settings(), sort_keys=True)

    def load(self, device: str) -> None:
        """As `ImageCaptioner.load`."""
        self._network = captioner_store.load(
            self._locations, weights=self._weights, device=device, dtype=self._dtype, compile_cnn=self._compile_cnn
        )
        self._reranker = build_reranker(self._rerank, self._search, device=device, dtype=self._dtype)

    def begin(self, images: PixelsByKey) -> EncodedPixels:
        """As `ImageCaptioner.begin`: copies pixels to the device and starts the CNN."""
        assert self._network, "load comes first"
        with _options_checked():
            return self._network.encode(images)

    def caption(self, images: PixelsByKey | EncodedPixels) -> Sequence[Caption]:
        """As `ImageCaptioner.caption`."""
        assert self._network, "load comes first"
        with _options_checked():
            if isinstance(images, EncodedPixels):
                captions = self._network.caption_encoded(images, self._search, self._reranker)
            else:
                captions = self._network.caption_pixels(images, self._search, self._reranker)
        if not self._search.token_probs:
            return captions
        return [replace(caption, columns={TOKEN_PROBS.name: _token_probs(caption)}) for caption in captions]

    def close(self) -> None:
        """As `ImageCaptioner.close`."""
        self._network = self._reranker = None

    def settings(self) -> dict[str, Any]:
        """As `ImageCaptioner.settings`: fingerprints of the networks, search, reranking and precision."""
        networks = [_identify(directory) for directory in self._searching]
        members = [network | {"weight": weight} for network, weight in zip(networks, self._weights, strict=True)]
        found: dict[str, Any] = {
            "captioner": networks[0] if len(networks) == 1 else {"name": self.name, "members": members},
            "search": asdict(self._search),
            "dtype": self._dtype,
        }
        if self._rerank.by != "score":
            reranking = _identify(self._reranking[0]) if self._reranking else None
            found["rerank"] = asdict(self._rerank) | {"captioner": reranking}
        return found

    def about(self) -> dict[str, Any]:
        """As `ImageCaptioner.about`: the metadata of its only network, or of each."""
        each = [asdict(read_metadata(directory)) | {"directory": str(directory)} for directory in self._searching]
        return each[0] if len(each) == 1 else {"members": each}


@contextmanager
def _options_checked() -> Iterator[None]:
    """Stops the job where the machine cannot do what an option asks for, which is known only when it is tried."""
    try:
        yield
    except OptionError as error:
        raise CaptionerError(str(error)) from error


def _token_probs(caption: Caption) -> list[float]:
    return [math.exp(log_prob) for log_prob in caption.candidates[0].token_log_probs or ()]


def _location_for_workers(captioner: str) -> str:
    """Returns an absolute path for a directory; workers look up a name in the zoo of the code shipped to them."""
    return str(Path(captioner).absolute()) if captioner and Path(captioner).exists() else captioner


def _identify(directory: Path) -> dict[str, Any]:
    return {"name": directory.name, "sha256": checkpoint.fingerprint(directory)}
