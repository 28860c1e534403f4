"""The protocol of captioners: whatever captions images in a job, a network of Shardtalk's or anybody's.

>>> class Size(ImageCaptioner):
...     identity = "size, version 1"
...
...     def caption(self, images):
...         return [Caption([Candidate(f"{image.width} by {image.height} pixels")]) for image in images]

Letters: B images.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from model.captioner.base import Candidate, Caption
from model.vision.preprocessing import Preprocessing
from pipeline.schema import describe_column

__all__ = ["Candidate", "Caption", "EncodedImages", "ImageCaptioner", "Inputs", "RgbImages"]


@dataclass(frozen=True)
class EncodedImages:
    """An input of a captioner: the bytes of each file, which is one that can be decoded. Batches are `list[bytes]`."""


@dataclass(frozen=True)
class RgbImages:
    """An input of a captioner: decoded images, upright, in RGB, transparency over white.

    Batches are `list[PIL.Image.Image]`.

    Args:
        max_side: longest side in pixels; larger images are made smaller where they are decoded, ahead of the captioner.
            0 keeps them as they are, which for large photos takes much memory.
    """

    max_side: int = 1024


Inputs = EncodedImages | RgbImages | Sequence[Preprocessing]
"""What a captioner is given. For preprocessings, batches are `dict[Preprocessing, numpy.ndarray]`: (B, image_size,
image_size, 3) uint8 pixels by `Preprocessing.pixel_key`."""


class ImageCaptioner(ABC):
    """Captions batches of images in a job of `shardtalk caption`. Subclass it for a captioner of your own.

    A job makes it once on the driver, reads its attributes, and pickles it to each process that captions. There `load`
    is called once, then `caption` for each batch, one after the other, and in the end `close`. So `__init__` only
    stores its arguments; weights, connections and locks belong into `load`.
    """

    inputs: Inputs = RgbImages()
    """The form in which it wants its images."""
    columns: pa.Schema = pa.schema([])
    """Columns that it adds to the rows, filled from `Caption.columns`; null where there is an error."""
    batch_size: int = 0
    """Number of images per call of `caption` unless the user says otherwise. 0: 256 on cuda, 32 on the CPU; see
    `may_be_tried`."""
    uses_gpu: bool = True
    """Whether it computes on a GPU where there is one. False: none is reserved, and `load` is given "cpu"."""
    is_thread_safe: bool = False
    """Whether several threads may call `caption` at once. On a CPU, the local runner then has each core decode and
    caption by itself."""
    may_be_tried: bool = False
    """Whether a job on a GPU may caption some images several times, to find the fastest batch size for all others."""
    memory_bytes: int = 0
    """Main memory of a process that captions, in bytes, which Ray then reserves. 0 if unknown."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """What decides which captions it gives: version of the weights, prompt, options of generation.

        An output that was begun under another identity is not continued. It is stored in the output, so it holds no
        secrets.
        """

    @property
    def name(self) -> str:
        """Its name, for messages, the gallery and the output's records; that of the class unless overridden."""
        return type(self).__name__

    def load(self, device: str) -> None:  # noqa: B027
        """Loads what `caption` needs, in the process that captions.

        Args:
            device: name of a torch device, such as "cpu" or "cuda"; "auto" is cuda if available, else cpu.
        """

    def begin(self, images: Any) -> Any:
        """Begins a batch on a GPU while the batch before it is captioned, and returns what `caption` is given for it.

        Worth overriding where something can be started without waiting for it. Called in the same thread as `caption`,
        for some batches only. After an exception, the batch is captioned without.
        """
        return images

    @abstractmethod
    def caption(self, images: Any) -> Sequence[Caption | Exception]:
        """Captions a batch. A caption must not depend on the other images of the batch.

        Args:
            images: B images, at least one, in the form that `inputs` names, or what `begin` made of them.

        Returns B captions in the order of the images; an exception stands for an image that cannot be captioned, and
        becomes a row with the error code `captioner_failed`.

        Raises `torch.OutOfMemoryError` for a batch that is too large: it is tried again in halves. `CaptionerError`
        stops the job with its message. After any other exception, halves of the batch are tried, to find the image that
        is to blame.
        """

    def close(self) -> None:  # noqa: B027
        """Releases what `load` acquired. Not called in a process that is killed."""

    def settings(self) -> dict[str, Any]:
        """Returns what determines its captions and columns, as nested JSON, by which an output knows its job.

        Where an output was begun under other settings, the message names each that differs.
        """
        found: dict[str, Any] = {"captioner": {"name": self.name, "identity": self.identity}}
        if len(self.columns):
            found["columns"] = [describe_column(field) for field in self.columns]
        return found

    def about(self) -> dict[str, Any]:
        """Returns what `shardtalk captioners` shows of it beside its name, as nested JSON."""
        return {
            "identity": self.identity,
            "inputs": str(self.inputs),
            "columns": [describe_column(field) for field in self.columns],
        }
