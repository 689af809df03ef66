"""Jobs whose last occurrence has passed are completed, once everything that was due by now has been written down.

A portion at a time: very many jobs may end at one instant, and a change of a job costs MongoDB more than an execution,
because `jobs` has many indexes. Their executions are being sent just then, and the leader's loop waits for the write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.store import engine_jobs, schedules

if TYPE_CHECKING:
    from cluster.leader.context import LeaderContext

AT_ONCE = 500
ENDED_FOR_MS = 1000


class Completer:
    """The completing of one leader."""

    def __init__(self, context: LeaderContext) -> None:
        self._context = context

    async def step(self, now_ms: int) -> int:
        """Complete some jobs. Returns how many."""
        self._context.trusted_term()
        earliest = await schedules.earliest_next_ms(self._context.db)
        if earliest is not None and earliest < now_ms:
            return 0
        return await engine_jobs.complete_ended(self._context.db, now_ms - ENDED_FOR_MS, AT_ONCE)
