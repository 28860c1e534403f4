"""Caches the features of a frozen CNN for a split in the run's folder.

features/<split>-<view>-<digest>-<first>-<last>.arrow: Arrow IPC, one column, F float32 for each image, in
the split's order. View 0 is the image itself, others are random crops of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from tqdm import tqdm

from model.device import autocast
from model.nn.encoder import Encoder
from model.nn.frozen_cnn import FrozenFeatures
from model.vision.augmentation import crop_and_flip
from model.vision.preprocessing import Preprocessing
from pipeline.datasets.prepared_split import ImageIndices, PreparedSplit
from pipeline.storage.folder import Folder
from pipeline.training.data_loader import in_order, pixel_batches, worker_share
from pipeline.training.distributed import WorldInfo

FOLDER = "features"
BATCH_IMAGES = 64


def compute_features(
    encoder: Encoder,
    split: PreparedSplit,
    indices: ImageIndices,
    preprocessing: Preprocessing,
    *,
    device: torch.device,
    dtype: torch.dtype,
    num_decode_threads: int,
    crop: Callable[[torch.Tensor], torch.Tensor] = lambda images: images,
) -> torch.Tensor:
    """Computes `Encoder.features` of some images of a split, each after `crop`; returns float32 on the CPU."""
    features = FrozenFeatures(encoder, dtype=dtype)
    order = in_order(split, indices, BATCH_IMAGES)
    batches = pixel_batches(split, order, preprocessing, num_decode_threads=num_decode_threads)
    shown = tqdm(batches, "features", total=order.steps, unit="batch", leave=False, disable=None)
    with torch.inference_mode(), autocast(device, dtype):
        found = [features(crop(preprocessing.normalize(pixels.to(device)))).float().cpu() for _, pixels in shown]
    return torch.cat(found).clone()  # outside of inference mode, so that it can be trained on


class FeatureCache:
    """The pooled features of the splits for one CNN, shared by the workers through the run's folder.

    Args:
        folder: the run's folder.
        encoder: encoder with the CNN that computes the features.
        preprocessing: preprocessing of the images.
    """

    def __init__(self, folder: Folder, encoder: Encoder, preprocessing: Preprocessing) -> None:
        self._folder, self._encoder, self._preprocessing = folder, encoder, preprocessing
        digest = hashlib.sha256(repr(preprocessing).encode())
        for name, weight in encoder.cnn.state_dict().items():
            digest.update(name.encode() + weight.cpu().contiguous().numpy().tobytes())
        self._digest = digest.hexdigest()[:16]

    def of(
        self,
        name: str,
        split: PreparedSplit,
        world: WorldInfo,
        *,
        views: int = 1,
        min_crop_scale: float = 1.0,
        **options: Any,
    ) -> torch.Tensor:
        """Returns features (views, N, F) float32 of a split on the CPU. Each worker computes its missing share.

        Args:
            options: `dtype` and `num_decode_threads` of `compute_features`.
        """
        return torch.stack([self._view(name, split, world, view, min_crop_scale, options) for view in range(views)])

    def _view(  # noqa: PLR0917
        self,
        name: str,
        split: PreparedSplit,
        world: WorldInfo,
        view: int,
        min_crop_scale: float,
        options: Mapping[str, Any],
    ) -> torch.Tensor:
        prefix = f"{name}-{view}-{self._digest}-"
        parts = self._parts(prefix, len(split)) if world.is_main else None
        if world.broadcast(parts is None):
            mine = worker_share(split, world.rank, world.count)
            if view:
                random = torch.Generator().manual_seed(view * world.count + world.rank)
                options = {**options, "crop": partial(crop_and_flip, min_scale=min_crop_scale, generator=random)}
            found = compute_features(self._encoder, split, mine, self._preprocessing, device=world.device, **options)
            if world.count == 1:
                self._write(f"{prefix}0-{len(split)}.arrow", found)
                return found
            self._write(f"{prefix}{mine[0]}-{mine[-1] + 1}.arrow", found)
            world.all_gather(None)  # waits until all have written
        return torch.cat([self._read(part) for part in self._parts(prefix, len(split)) or ()])

    def _parts(self, prefix: str, images: int) -> list[str] | None:
        """Returns the files that together hold all images, in order; None if some are missing."""
        names = [name for name in self._folder.names(FOLDER) if name.startswith(prefix) and name.endswith(".arrow")]
        ends = {tuple(map(int, name.removesuffix(".arrow").split("-")[-2:])): name for name in names}
        found, reached = list[str](), 0
        while reached < images:
            following = max(((last, first) for first, last in ends if first == reached), default=None)
            if following is None:
                return None
            found.append(ends[reached, following[0]])
            reached = following[0]
        return found

    def _write(self, name: str, features: torch.Tensor) -> None:
        column = pa.FixedSizeListArray.from_arrays(pa.array(features.numpy().ravel()), features.shape[1])
        table = pa.table({"features": column})
        with self._folder.writer(f"{FOLDER}/{name}") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=10_000)

    def _read(self, name: str) -> torch.Tensor:
        return torch.cat(list(self._batches(name)))

    def _batches(self, name: str) -> Iterator[torch.Tensor]:
        table = pa.ipc.open_file(pa.BufferReader(self._folder.read(f"{FOLDER}/{name}"))).read_all()
        for chunk in table["features"].chunks:
            values: np.ndarray[tuple[int], np.dtype[np.float32]] = chunk.flatten().to_numpy()
            yield torch.from_numpy(values.reshape(len(chunk), -1).copy())
