"""The position of a training worker among all workers, and their collective operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import distributed, nn

Item = TypeVar("Item")


@dataclass(frozen=True)
class WorldInfo:
    """Rank and device of this worker. Collective operations need no communication if there is a single worker.

    Args:
        rank: rank of this worker, from 0.
        count: number of workers.
        device: device of this worker.
    """

    rank: int
    count: int
    device: torch.device

    @classmethod
    def detect(cls, device: torch.device) -> WorldInfo:
        """Reads rank and world size from `torch.distributed`; without it, this is the only worker."""
        if not distributed.is_initialized():
            return cls(0, 1, device)
        return cls(distributed.get_rank(), distributed.get_world_size(), device)

    @property
    def is_main(self) -> bool:
        """True for the worker of rank 0, which writes and reports."""
        return self.rank == 0

    def all_gather(self, item: Item) -> list[Item]:
        """Returns the item of each worker, by rank. Waits for all workers."""
        if self.count == 1:
            return [item]
        items: list[Item | None] = [None] * self.count
        distributed.all_gather_object(items, item)
        return items  # type: ignore[return-value]

    def broadcast(self, item: Item) -> Item:
        """Returns the item of the main worker. Waits for it."""
        if self.count == 1:
            return item
        items = [item]
        distributed.broadcast_object_list(items, src=0)
        return items[0]

    def sync_parameters(self, network: nn.Module) -> None:
        """Copies the main worker's weights and buffers to all workers."""
        if self.count > 1:
            for value in network.state_dict().values():
                distributed.broadcast(value, src=0)
