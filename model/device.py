"""Device and precision: defaults, checks, and memory settings of the C library."""

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
"""Environment for a process that computes outside its main thread, to be used with `keep_freed_memory`.

glibc gives other threads arenas of their own, which return freed memory to the system. Read when a process starts.
"""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str | torch.device = "auto") -> torch.device:
    """Returns the device called `name`; "auto" is cuda if available, else cpu. Raises OptionError for any other."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise OptionError(f"there is no device {name!r}; try cpu or cuda") from error
    if device.type == "meta" or (device.type != "cpu" and not _is_available(device)):
        raise OptionError(f"device is {name}, and this machine has none; try cpu")
    return device


def describe_device(device: torch.device) -> str:
    """Returns a readable name of the device, such as "cpu" or "cuda (NVIDIA H100)"."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def _is_available(device: torch.device) -> bool:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return (
        accelerator is not None
        and accelerator.type == device.type
        and (device.index or 0) < torch.accelerator.device_count()
    )


def choose_dtype(name: str | torch.dtype, device: torch.device) -> torch.dtype:
    """Returns the precision of matrix products called `name`.

    "auto" is float32 on the CPU; on cuda it is bfloat16, or float16 if the GPU does not support bfloat16.

    Raises OptionError for an unknown name, and for a precision in which the device cannot run an LSTM.
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
    """True if the device can run an LSTM in `dtype`; 16 bits need CPUs with instructions for them."""
    if device.type != "cpu":
        return True
    try:
        with torch.no_grad(), autocast(device, dtype):
            torch.nn.LSTM(1, 1)(torch.zeros(1, 1, 1))
    except RuntimeError:  # oneDNN has no kernel
        return False
    return True


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Returns the context in which matrix products run in `dtype`; it has no effect for float32 and float64."""
    return torch.autocast(device.type, dtype, enabled=dtype in (torch.bfloat16, torch.float16))


def keep_freed_memory() -> None:
    """Makes this process reuse the memory of freed tensors instead of returning it to the system.

    By default, glibc maps each large block anew and the kernel zeroes its pages, which takes up to half of the time of
    a CNN on the CPU. Does nothing with another C library.
    """
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2 * _KEPT_BYTES)
        mallopt(_M_TOP_PAD, _KEPT_BYTES)
