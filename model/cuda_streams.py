"""The CUDA streams of a captioner: its device copies, encodes and searches at the same time.

https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-streams
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch


class Timing:
    """The times at which a CUDA device begins and ends some work."""

    def __init__(self) -> None:
        self.begin, self.end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]

    def seconds(self) -> float:
        """Returns the duration; only after the end."""
        return float(self.begin.elapsed_time(self.end)) / 1000


class CudaStreams:
    """A stream on which pixels are copied, one on which they are encoded, and one of searches.

    Args:
        device: a CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._one_search = device, threading.Lock()
        priorities = 0, 0, -1  # a search is many short kernels, for which the host waits
        streams = [torch.cuda.Stream(device, priority) for priority in priorities]  # type: ignore[no-untyped-call]
        self._copying, self._encoding, self._searching = streams

    def copy(self, host: torch.Tensor) -> torch.Tensor:
        """Copies a tensor to the device, by way of pinned memory; the current stream waits for it, the host does not.

        PyTorch keeps the pinned memory and uses it again once the copy has ended.
        """
        with torch.cuda.stream(self._copying):
            on_device = host.pin_memory().to(self._device, non_blocking=True)
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._copying)
        on_device.record_stream(current)
        return on_device

    @contextmanager
    def encoding(self) -> Iterator[Timing]:
        """Makes the stream of encoding the current one; yields the time that the work of this context takes."""
        timing = Timing()
        self._encoding.wait_stream(torch.cuda.current_stream(self._device))  # on which the weights may have been made
        with torch.cuda.stream(self._encoding):
            timing.begin.record()
            yield timing
            timing.end.record()

    @contextmanager
    def searching(self, encoded: Timing, tensors: Iterable[torch.Tensor]) -> Iterator[None]:
        """Makes the stream of searches the current one, after the end of some `encoding`, for tensors from there.

        One thread at a time: the graphs of a search have one set of arguments.
        """
        with self._one_search, torch.cuda.stream(self._searching):
            self._searching.wait_event(encoded.end)  # which came after all work on the weights
            for tensor in tensors:
                tensor.record_stream(self._searching)
            yield
