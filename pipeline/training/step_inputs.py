"""Prepares the inputs of a training step: on the device, augmented, divided for gradient accumulation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator

import numpy as np
import torch

from model.device import autocast
from model.vision.augmentation import crop_and_flip
from model.vision.preprocessing import Preprocessing
from pipeline.datasets.prepared_split import ImageIndices, PreparedSplit
from pipeline.training.data_loader import EpochOrder, pixel_batches, shuffle_epoch
from pipeline.training.distributed import WorldInfo

Inputs = dict[str, torch.Tensor]
"""`image_inputs` or `feature_inputs`, as `Network.forward` takes them."""


def epoch_inputs(
    split: PreparedSplit,
    world: WorldInfo,
    random: np.random.Generator,
    preprocessing: Preprocessing,
    cached: torch.Tensor | None,
    *,
    batch_size: int,
    buffer_images: int,
    num_decode_threads: int,
    first_step: int,
) -> Generator[tuple[ImageIndices, Inputs]]:
    """Yields this worker's images of each step of an epoch in random order, or their cached features.

    Args:
        random: generator with the same state on all workers.
        cached: features (views, N, F) of the split; None reads the images.
        batch_size: number of images per step, of all workers together.
        buffer_images: size of the shuffle buffer in images.
        num_decode_threads: number of threads that read and decode.
        first_step: index of the first step, for a resumed epoch.
    """
    order = shuffle_epoch(split, random, world.rank, world.count, batch_size=batch_size, buffer_images=buffer_images)
    if cached is not None:
        views = random.integers(len(cached), size=len(split))
        return feature_inputs(cached, views, order, device=world.device, first_step=first_step)
    return image_inputs(
        split, order, preprocessing, device=world.device, num_decode_threads=num_decode_threads, first_step=first_step
    )


def image_inputs(
    split: PreparedSplit,
    order: EpochOrder,
    preprocessing: Preprocessing,
    *,
    device: torch.device,
    num_decode_threads: int,
    first_step: int,
) -> Generator[tuple[ImageIndices, Inputs]]:
    """Yields indices and images (B, 3, H, W) of each step."""
    with contextlib.closing(
        pixel_batches(split, order, preprocessing, num_decode_threads=num_decode_threads, first_step=first_step)
    ) as batches:
        for indices, pixels in batches:
            yield indices, {"images": preprocessing.normalize(pixels.to(device, non_blocking=True))}


def feature_inputs(
    cached: torch.Tensor, views: ImageIndices, order: EpochOrder, *, device: torch.device, first_step: int
) -> Generator[tuple[ImageIndices, Inputs]]:
    """Yields indices and pooled features (B, F) of each step, one of the cached views (views, N, F) per image."""
    for indices in order.batches(first_step):
        yield indices, {"features": cached[views[indices], indices].to(device)}


def accumulation_parts(
    indices: ImageIndices, inputs: Inputs, count: int, *, min_crop_scale: float, random: np.random.Generator
) -> Iterator[tuple[ImageIndices, Inputs]]:
    """Divides a step into `count` parts for gradient accumulation; crops and mirrors images at random.

    Args:
        count: number of parts.
        min_crop_scale: minimum scale of a crop, as for `crop_and_flip`; 1 leaves images unchanged.
    """
    for part in np.array_split(np.arange(len(indices)), count):
        if len(part):
            given = {name: value[part[0] : part[-1] + 1] for name, value in inputs.items()}
            if "images" in given and min_crop_scale < 1.0:
                generator = torch.Generator().manual_seed(int(random.integers(2**40)))
                given["images"] = crop_and_flip(given["images"], min_scale=min_crop_scale, generator=generator)
            yield indices[part], given


def replace_by_features(
    accumulation_parts: Iterable[tuple[ImageIndices, Inputs]],
    features: Callable[[torch.Tensor], torch.Tensor],
    *,
    dtype: torch.dtype,
) -> Iterator[tuple[ImageIndices, Inputs]]:
    """Replaces images by their features, for a frozen CNN, which then runs once however often they are used.

    Args:
        features: as `Encoder.features` in evaluation mode.
        dtype: precision of its matrix products.
    """
    for indices, inputs in accumulation_parts:
        with torch.no_grad(), autocast(inputs["images"].device, dtype):
            found = features(inputs["images"])
        yield indices, {"features": found}
