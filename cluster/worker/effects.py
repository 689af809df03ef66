"""The after-effects of results: permits returned, jobs paused after 410, counts, spans."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from cluster.core.errors import StoreUnavailable
from cluster.core.execution.trace import final_spans, trace_id
from cluster.store.mongo.operation import retry_while_unavailable
from cluster.usecases.jobs import pause_for_gone_target
from cluster.worker.model import FinishedRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.core.execution.model import Ending, Job
    from cluster.worker.context import WorkerContext
    from cluster.worker.limit_queues import LimitQueues
    from cluster.worker.model import DroppedExecution

log = structlog.get_logger()

PAUSE_SECONDS = 3600.0


class Effects:
    """The after-effects on one node."""

    def __init__(self, context: WorkerContext, limit_queues: LimitQueues) -> None:
        self._db = context.db
        self._clock = context.clock
        self._rate_limiter = context.rate_limiter
        self._held = context.held
        self._collector = context.collector
        self._limit_queues = limit_queues

    async def return_permits(self, results: Sequence[FinishedRequest | DroppedExecution]) -> None:
        """Let others run that share a limit with what has ended. A permit that is not returned counts until its lease ends."""
        permits = [r.permit for r in results if isinstance(r, FinishedRequest) and r.permit is not None]
        if not permits:
            return
        try:
            await self._rate_limiter.release(permits)
        except StoreUnavailable as exc:
            log.warning("permits_unavailable", error=str(exc))
        self._limit_queues.wake({p.limit_key for p in permits})

    async def pause_gone(self, job: Job) -> None:
        """A target answered 410 Gone. If this node dies before the job is paused, its next occurrence is answered 410 too."""
        reason = f"{job.target.url} answered 410 Gone; resume the job when its target is back"
        if await retry_while_unavailable(
            lambda: pause_for_gone_target(self._db, job, self._clock.now_ms(), reason),
            seconds=PAUSE_SECONDS,
            during="pause_gone",
        ):
            log.warning("job_paused_gone", job=job.id)

    def trace(self, final: Sequence[Ending]) -> None:
        """Collect the spans of executions that are final."""
        if self._collector is None:
            return
        now = self._clock.now_ms()
        for ending in final:
            if self._collector.wants(trace_id(ending.execution.id)):
                held = self._held.get(ending.execution.batch)
                self._collector.take(final_spans(ending, held.claimed_ms if held else 0, now))
