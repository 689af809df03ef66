"""Executions of paused jobs, and those that a window holds: they stay owed, and wait in the database until they may go.

The node that meets one releases it soon, for as long as the pause has lasted already, between bounds. So a short pause
costs little delay, and a long one costs few claims. At a resume the leader wakes them (`paused_batches`); if none leads,
they are claimed again after `MAX_WAIT_MS` at most. What a window holds is looked at in the same way, so that it goes on
when the window was shortened or deleted, and leaves at a spread after its end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.worker.model import Deferral

if TYPE_CHECKING:
    from cluster.clock import Clock
    from cluster.core.execution.model import Execution, Job
    from cluster.core.windows import HoldingWindow
    from cluster.worker.held_batch import HeldBatch

MIN_WAIT_MS = 1000
MAX_WAIT_MS = 30_000


class PausedExecutions:
    """The ones of this node that are still to be released."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: list[tuple[HeldBatch, Execution, int, HoldingWindow | None]] = []

    def add(self, held: HeldBatch, execution: Execution, job: Job, by: HoldingWindow | None = None) -> None:
        """A window holds it (`by`), or its job is paused."""
        since_ms = by.span.from_ms if by is not None else job.past[-1].to_ms if job.past else 0
        self._waiting.append((held, execution, since_ms, by))

    def deferrals(self) -> list[Deferral]:
        """Those that wait under a lease, batch by batch. One stays here until it waits no longer, so that none is kept."""
        now_ms = self._clock.now_ms()
        self._waiting = [w for w in self._waiting if w[1].id in w[0].waiting and not w[0].lost]
        groups: dict[tuple[HeldBatch, HoldingWindow | None], list[tuple[Execution, int]]] = {}
        for held, execution, since_ms, by in self._waiting:
            groups.setdefault((held, by), []).append((execution, since_ms))
        found = []
        for (held, by), members in groups.items():
            lasted_ms = now_ms - max(since_ms for _, since_ms in members)
            until_ms = now_ms + min(max(lasted_ms, MIN_WAIT_MS), MAX_WAIT_MS)
            if by is not None:
                until_ms = min(until_ms, max(now_ms, by.window.leaves_ms(by.span, held.batch.id)))
            executions = tuple(e for e, _ in members)
            found.append(Deferral(held, executions, until_ms, paused=True, by_window=by is not None))
        return found
