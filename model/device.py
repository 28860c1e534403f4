"""Where and in which precision to compute, when nobody says."""

from __future__ import annotations

import ctypes
import platform
import sys
from contextlib import AbstractContextManager

import torch

from model.errors import OptionError

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # glibc's malloc.h
_KEPT_BYTES = 1 << 28

SINGLE_ARENA = {"MALLOC_ARENA_MAX": "1"}
"""Environment of a process that computes in another thread than its first, beside `keep_freed_memory`: glibc gives such
a thread a heap of small pieces, and those back to the system. It is read when the process starts."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str | torch.device = "auto") -> torch.device:
    """The device called `name`; "auto" is cuda where there is one, else cpu. Raises OptionError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise OptionError(f"there is no device {name!r}; try cpu or cuda") from error
    if device.type == "meta" or (device.type != "cpu" and not _is_here(device)):
        raise OptionError(f"device is {name}, and this machine has none; try cpu")
    return device


def describe_device(device: torch.device) -> str:
    """The device for people: "cpu", "cuda (NVIDIA H100)"."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def _is_here(device: torch.device) -> bool:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return (
        accelerator is not None
        and accelerator.type == device.type
        and (device.index or 0) < torch.accelerator.device_count()
    )


def choose_dtype(name: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The precision of matrix products.

    "auto" is float32 on the CPU, on cuda bfloat16, or float16 where the card has no bfloat16. Raises OptionError for a
    name that is none, and for a precision in which the device computes no LSTM.
    """
    if name == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if isinstance(name, str) and name not in _DTYPES:
        raise OptionError(f"dtype is {name!r}; choose auto, {', '.join(_DTYPES)}")
    dtype = name if isinstance(name, torch.dtype) else _DTYPES[name]
    if not can_compute_in(dtype, device):
        raise OptionError(f"this CPU does not compute in {str(dtype).removeprefix('torch.')}; choose dtype float32")
    return dtype


def can_compute_in(dtype: torch.dtype, device: torch.device) -> bool:
    """True if an LSTM runs in `dtype`: in 16 bits it does only on CPUs that have instructions for them."""
    if device.type != "cpu":
        return True
    try:
        with torch.no_grad(), autocast(device, dtype):
            torch.nn.LSTM(1, 1)(torch.zeros(1, 1, 1))
    except RuntimeError:  # oneDNN has no kernel
        return False
    return True


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """The context in which matrix products run in `dtype`; none for float32 and float64."""
    return torch.autocast(device.type, dtype, enabled=dtype in (torch.bfloat16, torch.float16))


def keep_freed_memory() -> None:
    """Lets this process reuse the memory of freed tensors instead of returning it to the system at once.

    glibc maps every large block anew, and the kernel clears its pages each time: a CNN on the CPU spends up to half of
    its time there. Does nothing where the C library is another.
    """
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2 * _KEPT_BYTES)
        mallopt(_M_TOP_PAD, _KEPT_BYTES)
