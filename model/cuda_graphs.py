"""Runs functions of tensors as CUDA graphs: one launch for all of their kernels.

https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch

Tensors = tuple[torch.Tensor, ...]


class CudaGraphs:
    """The graphs of some functions, one for each name and shapes of arguments; a `static_beam_search.Run`.

    A function runs as it is the first time, which also warms its libraries up, is captured the second time and replayed
    from then on, so that a job of one batch captures nothing. All graphs share the memory of their intermediate
    results, and those with arguments of the same shapes share the arguments' memory: the results of a call are valid
    until the next one.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream: torch.cuda.Stream | None = None  # captures must be from one, to share memory
        self._seen: set[Hashable] = set()
        self._arguments: dict[Hashable, Tensors] = {}
        self._graphs: dict[Hashable, tuple[torch.cuda.CUDAGraph, Tensors]] = {}

    def __call__(self, name: Hashable, function: Callable[..., Tensors], tensors: Tensors) -> Tensors:
        """Calls the function, which must not wait for the device and must depend on its arguments and its name only."""
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in tensors)
        if (name, shapes) not in self._seen:
            self._seen.add((name, shapes))
            return function(*tensors)
        if shapes not in self._arguments:
            self._arguments[shapes] = tuple(tensor.clone() for tensor in tensors)
        arguments = self._arguments[shapes]
        for argument, tensor in zip(arguments, tensors, strict=True):
            if argument is not tensor:
                argument.copy_(tensor)
        if (name, shapes) not in self._graphs:
            self._stream = self._stream or torch.cuda.Stream()  # type: ignore[no-untyped-call]
            graph = torch.cuda.CUDAGraph()
            # Another thread may copy pixels meanwhile, which "global" would not allow.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                results = function(*arguments)
            self._graphs[name, shapes] = graph, results
        graph, results = self._graphs[name, shapes]
        graph.replay()
        return results

    def __len__(self) -> int:
        """The number of graphs that were captured."""
        return len(self._graphs)
