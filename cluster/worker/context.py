"""The surroundings that the parts of one worker share: made once, at the start, and never changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.core.timings import PREFETCH_MS

if TYPE_CHECKING:
    from cluster.clock import Clock
    from cluster.core.execution.trace import SpanCollector
    from cluster.core.timings import Timings
    from cluster.outbound.sender import Sender
    from cluster.store.mongo.client import Database
    from cluster.worker.circuit_breakers import CircuitBreakers
    from cluster.worker.held_batch import HeldBatches
    from cluster.worker.metrics import WorkerStats
    from cluster.worker.pending import Unsent
    from cluster.worker.rate_limiter import RateLimiter
    from cluster.worker.reclaim_pause import ReclaimPause
    from cluster.worker.record_queue import RecordQueue
    from cluster.worker.slots import Slots
    from cluster.worker.tasks import Tasks
    from cluster.worker.windows import WindowWatch


ENOUGH = 512
"""With fewer executions than this a node looks for more, whenever they are due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerContext:
    """The surroundings of the worker, and those of its parts that several others use."""

    node: str
    db: Database
    clock: Clock
    timings: Timings
    sender: Sender
    collector: SpanCollector | None
    """Collects spans; None: no spans are made."""
    breakers: CircuitBreakers
    rate_limiter: RateLimiter
    windows: WindowWatch
    held: HeldBatches
    unsent: Unsent
    slots: Slots
    records: RecordQueue
    stats: WorkerStats
    reclaim_pause: ReclaimPause
    tasks: Tasks

    def due_soon(self) -> int:
        """How many executions wait on this node that any node would hold by now: they are due within the usual prefetch.

        What it holds for a crowded second beyond that is no work for the present.
        """
        if self.unsent.count < ENOUGH:
            return self.unsent.count
        return self.held.count_due(self.clock.now_ms() + PREFETCH_MS)
