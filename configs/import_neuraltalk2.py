"""What `shardtalk import-neuraltalk2` can be told."""

from __future__ import annotations

from dataclasses import dataclass

from configs.errors import ConfigError


@dataclass(frozen=True)
class ImportNeuraltalk2Config:
    """Make a captioner of a checkpoint of neuraltalk2, and say what was in it. It needs neither Torch7 nor a GPU.

    T7 is the file that train.lua or convert_checkpoint_gpu_to_cpu.lua saved.
    """

    checkpoint: str
    """The file, of the CPU or the GPU."""
    output: str
    """Folder for the captioner."""
    overwrite: bool = False
    """Write into a folder that has files."""

    def __post_init__(self) -> None:
        for name in ("checkpoint", "output"):
            if "://" in getattr(self, name):
                raise ConfigError(f"{name} is {getattr(self, name)}; give a path of this machine")
