"""Pauses that end by themselves: the leader resumes the jobs, as of the end that their pauses name.

A resume is one write on the revision that was read, so a job is resumed once, whoever else does it: a stale leader, or a
node that changes a job whose pause is over (`usecases.jobs`). What they write is the same. Settling does the rest, as
after a resume by hand; late, if no leader was there at the end.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from cluster.core.job.changes import ChangeStamp, end_pause
from cluster.store import pauses

if TYPE_CHECKING:
    from cluster.leader.context import LeaderContext

log = structlog.get_logger()

JOBS = 500
"""Jobs resumed in one step."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """The result of one step. `more`: as many pauses as fit into one step were over."""

    jobs: int = 0
    more: bool = False


class PauseEnder:
    """Ending pauses by one leader."""

    def __init__(self, context: LeaderContext) -> None:
        self._context = context

    async def step(self, now_ms: int) -> Resumed:
        """Resume up to `JOBS` jobs whose pause is over."""
        found = await pauses.over(self._context.db, now_ms, JOBS)
        if not found:
            return Resumed()
        ends = [end_pause(job, ChangeStamp(now_ms, uuid.uuid4().hex, uuid.uuid4().hex)) for job in found]
        self._context.trusted_term()
        resumed = await pauses.end(self._context.db, [change for change in ends if change is not None])
        if resumed:
            log.info("pauses_ended", jobs=resumed)
        return Resumed(resumed, len(found) == JOBS and resumed > 0)
