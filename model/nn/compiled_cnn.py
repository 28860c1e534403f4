"""A CNN compiled by `torch.compile` for batches of one size, to which others are padded.

Letters: B images, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from model.errors import OptionError


class CompiledCnn:
    """Computes what a CNN in evaluation mode does.

    Args:
        cnn: the CNN, which takes (B, 3, H, W).
        batch_size: the number of images to compile it for.
    """

    def __init__(self, cnn: nn.Module, batch_size: int) -> None:
        self.batch_size, self._cnn = batch_size, cnn
        self._compiled: Callable[[torch.Tensor], torch.Tensor] = torch.compile(cnn, dynamic=False)

    def warm_up(self, images: torch.Tensor) -> None:
        """Compiles it, which takes a minute on a GPU. Raises OptionError where that fails, as without a C compiler.

        Args:
            images: (`batch_size`, 3, H, W) like those to come.
        """
        try:
            self._compiled(_in_channels_last(images))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            inner = getattr(error, "inner_exception", error)
            reason = f"{type(inner).__name__}: {str(inner).strip().partition(chr(10))[0]}"
            raise OptionError(f"the CNN cannot be compiled here: {reason}; give --compile_cnn never") from error

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Computes the features of at most `batch_size` images (B, 3, H, W); few are not worth padding."""
        missing = self.batch_size - len(images)
        if missing > len(images):
            features: torch.Tensor = self._cnn(images)
            return features
        padded = torch.cat([images, images[:1].expand(missing, -1, -1, -1)]) if missing else images
        return self._compiled(_in_channels_last(padded))[: len(images)]


def _in_channels_last(images: torch.Tensor) -> torch.Tensor:
    """Another memory layout would be compiled anew."""
    return images.contiguous(memory_format=torch.channels_last)
