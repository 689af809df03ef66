"""Judging what stood unclaimed: `catchUp` binds executions that were written in time when no node was there to send them.

A batch is judged once, at its first claim, before anything of it is sent: nothing can have been sent by then. The claim says
by the primary's clock whether the batch stood unclaimed; cluster time has to agree, so that a primary whose clock was set
makes nothing missed. Nothing is judged while the clock is in doubt. The time in which a maintenance window held an execution
does not count: no node could have sent it then. What a window skips is left to it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from cluster.core.catch_up_policy import unclaimed_reason, window_start_ms
from cluster.core.execution.model import Ending
from cluster.core.ids import spread_ms
from cluster.core.lifecycle import Event, JobState, next_state
from cluster.core.schedule.schedule import schedule_from_key
from cluster.core.timings import PREFETCH_MS
from cluster.store import engine_jobs

if TYPE_CHECKING:
    from cluster.core.execution.model import Execution, JobSchedule
    from cluster.worker.claim import ClaimedBatch
    from cluster.worker.context import WorkerContext
    from cluster.worker.record import Recorder

log = structlog.get_logger()

OWING = (JobState.ACTIVE, JobState.COMPLETED)


class UnclaimedJudge:
    """Applies `catchUp` to claimed batches of one node."""

    def __init__(self, context: WorkerContext, recorder: Recorder) -> None:
        self._context = context
        self._clock = context.clock
        self._recorder = recorder

    async def judge(self, claimed: ClaimedBatch) -> ClaimedBatch:
        """Record as missed what `catchUp` says of a batch that stood unclaimed. Returns the batch, judged, with the rest.

        Raises `StoreUnavailable`: then nothing was judged, and the batch still stands unclaimed.
        """
        if not claimed.batch.unclaimed:
            return claimed
        batch = replace(claimed.batch, unclaimed=False)
        owed = [e for e in claimed.executions if not e.trigger and e.replayed_ms is None and not e.attempts]
        jobs = await engine_jobs.get_schedules(self._context.db, {e.job_id for e in owed}) if owed else {}
        held = await self._context.windows.held_ms(owed) if owed else {}
        now_ms = self._clock.now_ms()
        endings = []
        for execution in owed:
            job, held_ms = jobs.get(execution.job_id), held[execution.id]
            unclaimed_ms = self._context.timings.unclaimed_ms - PREFETCH_MS
            if held_ms is None or now_ms - execution.send_ms - held_ms <= unclaimed_ms:
                continue
            reason = None if job is None else self._why_missed(execution, job, held_ms, now_ms)
            if job is not None and reason is not None:
                endings.append(_ending(execution, job, reason, now_ms))
        if endings:
            await self._recorder.record_final(endings)
            self._context.stats.counters["missed"] += len(endings)
            log.warning("executions_missed", batch=batch.id, executions=len(endings), first=endings[0].execution.id)
        missed = {e.execution.id for e in endings}
        return replace(claimed, batch=batch, executions=tuple(e for e in claimed.executions if e.id not in missed))

    def _why_missed(self, execution: Execution, job: JobSchedule, held_ms: int, now_ms: int) -> str | None:
        """Why this execution is missed; None: it is sent, or its job as it is now says why it is cancelled."""
        periods = [*job.past_schedules, (job, now_ms)]
        of_version = [(p, to) for p, to in periods if p.schedule_version == execution.schedule_version]
        # What came due before a change is owed after it as it was before, and `catchUp` binds it as before.
        if job.state not in OWING or not any(execution.due_ms <= to and p.ended_by != "delete" for p, to in of_version):
            return None
        spread = spread_ms(job.id, job.spread_seconds)
        if now_ms - (execution.due_ms + spread - PREFETCH_MS) <= self._context.timings.unclaimed_ms:
            return None
        days = job.retention_days or self._recorder.retention_days
        return unclaimed_reason(
            job.catch_up,
            job.catch_up_window_seconds,
            within_window=execution.due_ms + held_ms >= window_start_ms(now_ms, job.catch_up_window_seconds, days),
            later_due=job.catch_up == "latest"
            and any(_owes_by(p, execution.due_ms, min(to, now_ms - spread)) for p, to in periods),
        )


def _owes_by(period: JobSchedule, after_ms: int, until_ms: int) -> bool:
    """Whether the job owes an occurrence of this period behind one instant and not behind another."""
    first_ms = max(after_ms + 1, period.active_from_ms, period.start_ms or 0)
    later = schedule_from_key(period.schedule_key).next_after(first_ms - 1)
    return later is not None and later <= until_ms and period.owes(later)


def _ending(execution: Execution, job: JobSchedule, reason: str, now_ms: int) -> Ending:
    return Ending(
        execution=execution,
        state=next_state(execution.state, Event.MISS),
        ended_ms=now_ms,
        reason=reason,
        retention_days=job.retention_days,
        alert_pending=True,
    )
