"""Follows every execution of real workers through the table of `cluster.worker.execution_states`, step by step.

The entrances of the places are wrapped, so each step is seen when it is made. A step that the table does not have is kept
in `broken`.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cluster.worker.dispatch import Dispatcher
from cluster.worker.execution_states import NEXT, ExecutionState
from cluster.worker.held_batch import HeldBatch
from cluster.worker.host_queues import HostQueues
from cluster.worker.limit_queues import LimitQueue
from cluster.worker.paused import PausedExecutions
from cluster.worker.prepare import Preparer
from cluster.worker.probe_lottery import ProbeLottery
from cluster.worker.run_queue import RunQueue

if TYPE_CHECKING:
    import pytest

ENTRANCES: tuple[tuple[type, str, ExecutionState], ...] = (
    (RunQueue, "put", ExecutionState.READY),
    (HostQueues, "add", ExecutionState.DEFERRED),
    (LimitQueue, "join", ExecutionState.ASKING),
    (Preparer, "prepare_again", ExecutionState.STALE),
    (ProbeLottery, "probe", ExecutionState.PROBING),
)
"""Each is given one `ReadyExecution`."""
EVENTS = ("start", "finish", "drop", "recorded", "abandon", "lose", "withdraw", "move")
"""The events of `HeldBatch`."""


@dataclass
class Paths:
    """By execution id, the states it went through: one path for each lease it was sent under."""

    paths: dict[tuple[int, str], list[ExecutionState]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    nested: int = 0
    _held: list[HeldBatch] = field(default_factory=list)
    """Kept, so that no two of them have the same `id()`."""

    def clear(self) -> None:
        self.paths.clear()
        self.broken.clear()
        self._held.clear()

    def of(self, execution_id: str) -> list[list[ExecutionState]]:
        return [path for (_, name), path in self.paths.items() if name == execution_id]

    def steps(self) -> set[tuple[ExecutionState, ExecutionState]]:
        """Every step that was seen."""
        return {step for path in self.paths.values() for step in itertools.pairwise(path)}

    def begin(self, held: HeldBatch) -> None:
        self._held.append(held)
        for name in held.waiting:
            self.paths[id(held), name] = [ExecutionState.WAITING]

    def enter(self, held: HeldBatch, execution_id: str, state: ExecutionState) -> None:
        path = self.paths.get((id(held), execution_id))
        if path is None:
            return  # of a batch that no dispatcher was given
        if state not in NEXT[path[-1]]:
            self.broken.append(f"{execution_id}: {path[-1]} -> {state}, after {' '.join(path)}")
        path.append(state)

    def follow(self, held: HeldBatch) -> None:
        """After an event of the batch: whichever of its executions changed their stage."""
        for name in {*held.batch.ids}:
            path = self.paths.get((id(held), name))
            if path is not None and path[-1].stage is not held.stage(name):
                self.enter(held, name, ExecutionState(held.stage(name)))


def install(patch: pytest.MonkeyPatch, paths: Paths) -> None:
    """From now on all dispatchers are followed."""
    real_add = Dispatcher.add

    def add(self: Dispatcher, held: HeldBatch) -> None:
        paths.begin(held)
        real_add(self, held)

    patch.setattr(Dispatcher, "add", add)
    for owner, name, state in ENTRANCES:
        patch.setattr(owner, name, _entrance(getattr(owner, name), state, paths))
    patch.setattr(PausedExecutions, "add", _pausing(PausedExecutions.add, paths))
    for name in EVENTS:
        patch.setattr(HeldBatch, name, _event(getattr(HeldBatch, name), paths))


def _entrance(real: Any, state: ExecutionState, paths: Paths) -> Any:
    @functools.wraps(real)
    def entered(self: Any, *args: Any) -> Any:
        ready = args[-1]
        if ready.execution.id in ready.held.waiting:  # otherwise it is passed over when its turn comes
            paths.enter(ready.held, ready.execution.id, state)
        return real(self, *args)

    return entered


def _pausing(real: Any, paths: Paths) -> Any:
    @functools.wraps(real)
    def entered(self: Any, held: HeldBatch, execution: Any, job: Any, *by: Any) -> Any:
        paths.enter(held, execution.id, ExecutionState.PAUSED)
        return real(self, held, execution, job, *by)

    return entered


def _event(real: Any, paths: Paths) -> Any:
    @functools.wraps(real)
    def happened(self: HeldBatch, *args: Any) -> Any:
        paths.nested += 1
        try:
            return real(self, *args)
        finally:
            paths.nested -= 1
            if not paths.nested:  # `move` withdraws on its way, and `abandon` loses
                paths.follow(self)

    return happened
