"""Reads the output of neuraltalk2's prepro.py: an HDF5 file with pixels and labels, a JSON file with words and splits.

data.h5     images (N, 3, 256, 256) uint8 RGB; labels (M, D) uint32, ids from 1, padded with 0; label_length (M,);
            label_start_ix and label_end_ix (N,), from 1, the last one included
data.json   {"ix_to_word": {"1": "a", …}, "images": [{"split": "train", "file_path"?: "a/b.jpg", "id"?: 7}, …]}

Word ids are kept: they count from 1, as ours do. Pixels are read one image at a time.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from model.vocabulary import Vocabulary
from pipeline.datasets.annotations import SPLITS, CaptionedImage, SplitName
from pipeline.errors import InputError

_SHAPES = {"images": 4, "labels": 2, "label_length": 1, "label_start_ix": 1, "label_end_ix": 1}


@dataclass(frozen=True)
class Neuraltalk2Dataset:
    """A data set, without its pixels.

    Args:
        h5: the HDF5 file.
        vocabulary: the words, in the order of their ids.
        images: the images, with captions made from the words of the labels.
        ids: word ids of each image's captions.
    """

    h5: Path
    vocabulary: Vocabulary
    images: list[CaptionedImage]
    ids: list[list[list[int]]]

    @classmethod
    def read(cls, h5: Path, words: Path) -> Neuraltalk2Dataset:
        """Reads a data set. Raises InputError for files that are missing, of another format, or that do not match."""
        vocabulary, infos = _read_words(words)
        arrays = _read_labels(h5)
        count = len(arrays["label_start_ix"])
        if not len(infos) == count == len(arrays["label_end_ix"]) == arrays["images"]:
            raise InputError(f"{h5} has {count} images and {words} {len(infos)}: they are of different data sets")
        labels, lengths = arrays["labels"], arrays["label_length"]
        first, last = arrays["label_start_ix"], arrays["label_end_ix"]
        if len(lengths) != len(labels) or (first < 1).any() or (last > len(labels)).any():
            raise InputError(f"{h5} has {len(labels)} captions, and says of images that they have others")
        ids = [
            [labels[row, : lengths[row]].tolist() for row in range(start - 1, stop)]
            for start, stop in zip(first.tolist(), last.tolist(), strict=True)
        ]
        for captions in ids:
            if not all(captions) or not captions:
                raise InputError(f"{h5} has images without captions, or captions without words")
            if any(not 1 <= word < vocabulary.size for caption in captions for word in caption):
                raise InputError(f"{h5} has ids that are no words of {words}")
        said = [tuple(" ".join(vocabulary.words[word - 1] for word in caption) for caption in each) for each in ids]
        images = [_image(i, info, captions, words) for i, (info, captions) in enumerate(zip(infos, said, strict=True))]
        return cls(h5, vocabulary, images, ids)

    def of(self, split: SplitName) -> Iterator[tuple[CaptionedImage, list[list[int]], bytes]]:
        """Yields the images of a split, the word ids of their captions, and their pixels as PNG."""
        import h5py

        with h5py.File(self.h5, "r") as file:
            for i, (image, ids) in enumerate(zip(self.images, self.ids, strict=True)):
                if image.split == split:
                    encoded = io.BytesIO()
                    Image.fromarray(np.ascontiguousarray(file["images"][i].transpose(1, 2, 0))).save(encoded, "PNG")
                    yield image, ids, encoded.getvalue()


def _read_words(path: Path) -> tuple[Vocabulary, list[dict[str, Any]]]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        by_id = {int(key): word for key, word in document["ix_to_word"].items()}
        infos = list(document["images"])
        return Vocabulary(tuple(by_id[i] for i in range(1, len(by_id) + 1))), infos
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path} is not the JSON file that prepro.py writes: {reason}") from error


def _read_labels(path: Path) -> dict[str, Any]:
    """Reads all arrays, and instead of `images` their number."""
    try:
        import h5py
    except ImportError as error:
        raise InputError("reading HDF5 needs h5py; pip install 'shardtalk[h5]'") from error
    try:
        with h5py.File(path, "r") as file:
            wrong = [name for name, dimensions in _SHAPES.items() if file[name].ndim != dimensions]
            if wrong or file["images"].shape[1] != 3 or file["images"].dtype != np.uint8:  # noqa: PLR2004
                raise InputError(f"{path} is not the HDF5 file that prepro.py writes: see {(*wrong, 'images')[0]}")
            found = {name: file[name][()].astype(np.int64) for name in _SHAPES if name != "images"}
            return found | {"images": len(file["images"])}
    except (OSError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{path} is not the HDF5 file that prepro.py writes: {error}") from error


def _image(number: int, info: Any, captions: tuple[str, ...], words: Path) -> CaptionedImage:
    if not isinstance(info, dict) or info.get("split") not in SPLITS:
        raise InputError(f"{words}: image {number} is {info!r}, and should be in one of the splits {', '.join(SPLITS)}")
    file_path = str(info.get("file_path", f"{number}.png"))
    identity = info.get("id", file_path)
    return CaptionedImage(file_path, captions, info["split"], identity if isinstance(identity, int) else str(identity))
