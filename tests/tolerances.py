"""Tolerances of log-probabilities, and the precisions that this machine supports.

A sum in float32 depends on its order, and so on the kernel that the CPU, the batch size and the number of threads
select. Measured with SSE4.1 and AVX2 kernels, one and two threads, and batches of 1, 7 and 32 images: at most 11 units
in the last place a token for the captioner that ships, and 213 for the tests' tiny ones, whose weights are multiplied
so that images differ. The bound is the second power of two above, and what docs/architecture.md promises.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from model.device import can_compute_in

ULP = 2.0**-23  # of float32, at 1
ULPS_PER_TOKEN = 1024

needs_bfloat16 = pytest.mark.skipif(
    not can_compute_in(torch.bfloat16, torch.device("cpu")), reason="this CPU has no instructions for bfloat16"
)


def same_log_prob(expected: Any, num_tokens: int = 1) -> Any:
    """Matches a log-probability of `num_tokens` tokens, or a list of them; None matches None."""
    return None if expected is None else pytest.approx(expected, rel=0, abs=ULPS_PER_TOKEN * ULP * num_tokens)
