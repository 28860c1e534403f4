"""Prepares the inputs of a training step: on the device, augmented, divided for gradient accumulation."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator

import numpy as np
import torch

from model.device import autocast
from model.nn.encoder import Encoder
from model.vision.augmentation import crop_and_flip
from model.vision.preprocessing import Preprocessing
from pipeline.datasets.prepared_split import ImageIndices, PreparedSplit
from pipeline.training.data_loader import EpochOrder, pixel_batches

Inputs = dict[str, torch.Tensor]
"""`images` or `features`, as `Network.forward` takes them."""


def images(
    split: PreparedSplit,
    order: EpochOrder,
    preprocessing: Preprocessing,
    *,
    device: torch.device,
    threads: int,
    first_step: int,
) -> Generator[tuple[ImageIndices, Inputs]]:
    """Yields indices and images (B, 3, H, W) of each step."""
    with contextlib.closing(
        pixel_batches(split, order, preprocessing, threads=threads, first_step=first_step)
    ) as batches:
        for indices, pixels in batches:
            yield indices, {"images": preprocessing.normalize(pixels.to(device, non_blocking=True))}


def features(
    cached: torch.Tensor, views: ImageIndices, order: EpochOrder, *, device: torch.device, first_step: int
) -> Generator[tuple[ImageIndices, Inputs]]:
    """Yields indices and pooled features (B, F) of each step, one of the cached views (views, N, F) per image."""
    for indices in order.batches(first_step):
        yield indices, {"features": cached[views[indices], indices].to(device)}


def parts(
    indices: ImageIndices, inputs: Inputs, count: int, *, min_crop_scale: float, random: np.random.Generator
) -> Iterator[tuple[ImageIndices, Inputs]]:
    """Divides a step into `count` parts for gradient accumulation; crops and mirrors images at random.

    Args:
        min_crop_scale: as `crop_and_flip` takes it; 1 leaves images as they are.
    """
    for part in np.array_split(np.arange(len(indices)), count):
        if len(part):
            given = {name: value[part[0] : part[-1] + 1] for name, value in inputs.items()}
            if "images" in given and min_crop_scale < 1.0:
                generator = torch.Generator().manual_seed(int(random.integers(2**40)))
                given["images"] = crop_and_flip(given["images"], min_scale=min_crop_scale, generator=generator)
            yield indices[part], given


def seen(
    parts: Iterable[tuple[ImageIndices, Inputs]], encoder: Encoder, *, dtype: torch.dtype
) -> Iterator[tuple[ImageIndices, Inputs]]:
    """Replaces images by their features, for a frozen CNN, which then runs once however often they are used."""
    encoder.eval()
    for indices, inputs in parts:
        yield indices, inputs if "features" in inputs else {"features": _features(encoder, inputs["images"], dtype)}


def _features(encoder: Encoder, images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    with torch.no_grad(), autocast(images.device, dtype):
        return encoder.features(images)
