"""What the workers of a run on Ray share: the rows in progress, the captioners that are up, and a reason to end.

It is in one actor, as each actor takes a process; this module imports little, as that process imports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.inference.actor_startup import StartupCounter
from pipeline.inference.fault_isolation import AttemptTracker, RowId, RowPositions

ANSWER_TIMEOUT_S = 5.0


class RunState(AttemptTracker, StartupCounter):
    """An `AttemptTracker` and a `StartupCounter`, and the reason why the captioner cannot go on. Runs in an actor."""

    def __init__(self) -> None:
        AttemptTracker.__init__(self)
        StartupCounter.__init__(self)
        self._fatal_error = ""

    def give_up(self, message: str) -> None:
        """Records why the captioner cannot go on; the first message counts."""
        self._fatal_error = self._fatal_error or message

    def fatal_error(self) -> str:
        """Returns why the captioner cannot go on; "" if it can."""
        return self._fatal_error


class RemoteRunState:
    """A handle to a `RunState` in an actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    @classmethod
    def start(cls) -> RemoteRunState:
        """Starts the actor on the driver's node, without which the job is over anyway."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        return cls(ray.remote(RunState).options(num_cpus=0, scheduling_strategy=here).remote())

    def plan(self, rows: Sequence[RowId]) -> tuple[list[RowPositions], RowPositions] | None:
        """As `AttemptTracker.plan`."""
        found: tuple[list[RowPositions], RowPositions] | None = ray.get(self._actor.plan.remote(rows))
        return found

    def begin(self, rows: Sequence[RowId]) -> None:
        """As `AttemptTracker.begin`. Waits, so that the rows are recorded before they can kill this process."""
        ray.get(self._actor.begin.remote(rows))

    def end(self, rows: Sequence[RowId]) -> None:
        """As `AttemptTracker.end`."""
        self._actor.end.remote(rows)

    def give_up(self, message: str) -> None:
        """As `RunState.give_up`. Waits, so that the message arrives before this process fails."""
        ray.get(self._actor.give_up.remote(message))

    def fatal_error(self) -> str:
        """As `RunState.fatal_error`."""
        return str(ray.get(self._actor.fatal_error.remote()))

    def add_this_actor(self) -> None:
        """Records that the calling actor is up."""
        self._actor.add.remote(ray.get_runtime_context().get_actor_id())

    def count(self) -> int:
        """As `StartupCounter.count`; 0 if there is no answer."""
        try:
            return int(ray.get(self._actor.count.remote(), timeout=ANSWER_TIMEOUT_S))
        except RayError:
            return 0
