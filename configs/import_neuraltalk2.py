"""Options of `shardtalk import-neuraltalk2`."""

from __future__ import annotations

from dataclasses import dataclass

from configs.errors import ConfigError


@dataclass(frozen=True)
class ImportNeuraltalk2Config:
    """Convert a neuraltalk2 checkpoint to a captioner, without Torch7 or a GPU.

    T7 is the file that train.lua or convert_checkpoint_gpu_to_cpu.lua saved.
    """

    checkpoint: str
    """The checkpoint file, saved on the CPU or the GPU."""
    output: str
    """Folder for the captioner."""
    overwrite: bool = False
    """Allow an output folder that has files in it."""

    def __post_init__(self) -> None:
        for name in ("checkpoint", "output"):
            if "://" in getattr(self, name):
                raise ConfigError(f"{name} is {getattr(self, name)}; give a path of this machine")
