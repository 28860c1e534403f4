"""The device that tests marked `cuda` compute on: SHARDTALK_TEST_DEVICE, else cuda; where there is none they skip."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

VARIABLE = "SHARDTALK_TEST_DEVICE"
FLOAT32_RELATIVE = 5e-4
"""Of a caption's log-probability: a hundredfold of what the kernels of one CPU differ by, for cuDNN's are others."""


def near_log_prob(expected: Any) -> Any:
    """Matches a log-probability, or a list of them, that another device computed in float32."""
    return pytest.approx(expected, rel=FLOAT32_RELATIVE)


@pytest.fixture
def device() -> Iterator[torch.device]:
    """The tested device, without TF32, to which cuDNN rounds float32 by default."""
    name = os.environ.get(VARIABLE)
    if not name and not torch.cuda.is_available():
        pytest.skip(f"this machine has no cuda; {VARIABLE}=cpu runs what makes sense without")
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield torch.device(name or "cuda")
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture
def cuda(device: torch.device) -> torch.device:
    """A CUDA device; without one the test is skipped."""
    if device.type != "cuda":
        pytest.skip("is about a GPU's memory")
    return device
