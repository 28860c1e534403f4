"""Floating-point operations: the number that a step needs, and the peak rate of a GPU."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.bench import Bench
from model.nn.captioning_network import Architecture

PEAKS = {"H100 NVL": 835e12, "H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12}
"""Dense bfloat16 operations per second from data sheets; the first whose name is part of the GPU's is taken."""
SIDE = 8192


def peak_flops(device: torch.device) -> tuple[float, str]:
    """Returns the peak of the GPU and its name; 0 and "" if unknown."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next(((peak, name) for part, peak in PEAKS.items() if part in name), (0.0, ""))


def matrix_product_flops(bench: Bench) -> float:
    """Measures operations per second of multiplying two large random square matrices."""
    side = bench.scaled(SIDE, least=256)
    left, right = (torch.randn(side, side, device=bench.device, dtype=bench.dtype) for _ in range(2))
    return 2.0 * side**3 / bench.step_s(lambda: left @ right, seconds=1)


def flops_per_image(architecture: Architecture, *, captions: int, words: int) -> float:
    """Counts operations of matrix products and convolutions, forward and backward, for an image with its captions.

    Counted on meta tensors. The backward pass of grouped convolutions is overcounted.
    """
    with torch.device("meta"):
        network = architecture.build()
        images, ids = torch.empty(1, 3, 224, 224), torch.zeros(captions, words, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        network(ids, images=images).sum().backward()
    return float(counter.get_total_flops())
