"""What one of several training workers knows of the others. Alone it is the first of one, and asks nobody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import distributed, nn

Item = TypeVar("Item")


@dataclass(frozen=True)
class WorldInfo:
    """This worker among all of them; they talk by `torch.distributed`, where it is initialised.

    Args:
        rank: of this one, from 0.
        count: of all.
        device: what this one computes on.
    """

    rank: int
    count: int
    device: torch.device

    @classmethod
    def detect(cls, device: torch.device) -> WorldInfo:
        """As `torch.distributed` knows them."""
        if not distributed.is_initialized():
            return cls(0, 1, device)
        return cls(distributed.get_rank(), distributed.get_world_size(), device)

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes and reports."""
        return self.rank == 0

    def all_gather(self, item: Item) -> list[Item]:
        """The item of each worker, by rank. Waits for all."""
        if self.count == 1:
            return [item]
        items: list[Item | None] = [None] * self.count
        distributed.all_gather_object(items, item)
        return items  # type: ignore[return-value]

    def broadcast(self, item: Item) -> Item:
        """The first worker's item. Waits for it."""
        if self.count == 1:
            return item
        items = [item]
        distributed.broadcast_object_list(items, src=0)
        return items[0]

    def sync_parameters(self, network: nn.Module) -> None:
        """Gives all the first worker's weights."""
        if self.count > 1:
            for value in network.state_dict().values():
                distributed.broadcast(value, src=0)
