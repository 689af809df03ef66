"""Completed jobs are removed when they were kept long enough: deleted as a user would delete them. Their history stays.

A job is left alone while anything of it is owed. The deletion names the revision that was read: a job that was changed
meanwhile stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from cluster.core.errors import CallerError
from cluster.store import completed_jobs
from cluster.store.history import DAY_MS
from cluster.usecases import jobs
from cluster.usecases.jobs import Precondition

if TYPE_CHECKING:
    from cluster.leader.context import LeaderContext

log = structlog.get_logger()

AT_ONCE = 200
LOOK_AGAIN_SECONDS = 30.0
"""A job that is not over yet is left out for so long, so that those behind it have their turn."""


class CompletedRemover:
    """The removing of one leader."""

    def __init__(self, context: LeaderContext) -> None:
        self._context = context
        self._db = context.db
        self._left_until: dict[str, float] = {}

    async def step(self, now_ms: int) -> int:
        """Remove some completed jobs. Returns how many."""
        now = self._context.clock.monotonic()
        self._left_until = {name: until for name, until in self._left_until.items() if until > now}
        days = self._context.completed_retention_days
        found = await completed_jobs.to_remove(self._db, now_ms, days, AT_ONCE, list(self._left_until))
        removed = 0
        for job in found:
            # Whatever its own retention is: it has been kept for as long as its record would have been.
            recorded_from_ms = now_ms - int(self._context.retention_days * DAY_MS)
            if not await completed_jobs.is_over(self._db, job, recorded_from_ms):
                self._left_until[job.id] = now + LOOK_AGAIN_SECONDS
                continue
            self._context.trusted_term()
            try:
                await jobs.delete(self._db, job.id, now_ms, Precondition(job.revision))
            except CallerError:  # it was changed or deleted meanwhile
                continue
            removed += 1
        if removed:
            log.info("completed_jobs_removed", jobs=removed)
        return removed
