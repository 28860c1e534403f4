"""A CNN that is not trained any more: the same features, up to rounding, in half the time on a CPU.

Letters: B images, H height, W width, F features, P regions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch

from model.nn.encoder import Encoder

IMAGES_AT_ONCE = 4
"""Images that pass through the CNN together: their activations fit in a processor's cache, those of 32 do not."""


def is_frozen_faster(weight: torch.Tensor, dtype: torch.dtype) -> bool:
    """Returns whether frozen networks are another computation: on a CPU in float32, of weights in float32."""
    return weight.device.type == "cpu" and weight.dtype == dtype == torch.float32


def frozen_features(encoder: Encoder, image_size: int, *, dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    """Returns a function that computes `Encoder.features` in evaluation mode, for any number of images.

    On a CPU in float32, batch normalisation becomes part of the convolutions, activations and sums become their last
    step, and weights are laid out for oneDNN. Elsewhere it is `Encoder.features` itself.

    Args:
        encoder: put into evaluation mode; later changes of its CNN's weights may have no effect.
        image_size: H and W.
        dtype: precision in which the features will be computed.
    """
    if not is_frozen_faster(encoder.projection.weight, dtype):
        return lambda images: encoder.eval().features(images)
    encoder.eval()
    example = torch.zeros(1, 3, image_size, image_size).contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated in favour of torch.compile, which needs a C++ compiler
        traced = torch.jit.trace(encoder.cnn, example, check_trace=False)  # type: ignore[no-untyped-call]
        cnn = torch.jit.optimize_for_inference(torch.jit.freeze(traced))

    def features(images: torch.Tensor) -> torch.Tensor:
        starts = range(0, len(images), IMAGES_AT_ONCE)
        return encoder.arrange(torch.cat([cnn(images[start : start + IMAGES_AT_ONCE]) for start in starts]))

    return features
