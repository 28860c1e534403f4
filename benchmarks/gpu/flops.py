"""Floating-point operations: what a step needs, and what a card can do."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.bench import Bench
from model.nn.captioning_network import Architecture

PEAKS = {"H100 NVL": 835e12, "H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12}
"""Dense bfloat16 operations a second by the vendor's data sheets; the first whose name is in the card's counts."""
SIDE = 8192


def peak_flops(device: torch.device) -> tuple[float, str]:
    """Of the card, and its name; 0 and nothing where it is not known."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next(((peak, name) for part, peak in PEAKS.items() if part in name), (0.0, ""))


def matrix_product_flops(bench: Bench) -> float:
    """Operations a second of a product of two large square matrices of random numbers."""
    side = bench.scaled(SIDE, least=256)
    left, right = (torch.randn(side, side, device=bench.device, dtype=bench.dtype) for _ in range(2))
    return 2.0 * side**3 / bench.step_s(lambda: left @ right, seconds=1)


def flops_per_image(architecture: Architecture, *, captions: int, words: int) -> float:
    """Operations that the network's products and convolutions take, forth and back, of an image with its captions.

    Counted on tensors without values. Too many where convolutions are grouped, which are counted wrong backwards.
    """
    with torch.device("meta"):
        network = architecture.build()
        images, ids = torch.empty(1, 3, 224, 224), torch.zeros(captions, words, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        network(ids, images=images).sum().backward()
    return float(counter.get_total_flops())
