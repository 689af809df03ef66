"""Settling: a job that was created, changed or resumed gets the occurrences that it owes up to where its row has come.

Jobs are read first and their rows second. Settling writes everything before the row's `covered_ms` for this job. The
main pass writes everything from there on, and reads the job after its change. Both write the same ids.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from cluster.core.errors import InvariantBroken, TermLost
from cluster.core.execution.planning import plan_batches
from cluster.core.lifecycle import JobState
from cluster.core.schedule.schedule import schedule_from_key
from cluster.leader.quarantine import bisect
from cluster.leader.unwritten import beginning_at, record_unwritten
from cluster.store import backfills, engine_jobs, paused_batches, schedules
from cluster.store.backfills import Backfill, backfill_id
from cluster.store.enqueue import insert_owed
from cluster.store.schedules import ScheduleRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.core.execution.model import JobSchedule
    from cluster.leader.context import LeaderContext

log = structlog.get_logger()

JOBS = 1000
"""Jobs settled in one step."""
GRACE_MS = 10_000
"""Occurrences further back than this are caught up as late work."""
SCHEDULES_KEPT = 20_000
OCCURRENCES = 10_000
"""Occurrences of one schedule looked at in one go."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The result of one step. `more`: as many jobs as fit into one step were waiting."""

    jobs: int = 0
    executions: int = 0
    missed: int = 0
    more: bool = False


class _FirstOccurrences:
    """First occurrences at or after an instant, kept from step to step: the jobs of an import share schedules.

    That a schedule has none between an instant and its first occurrence holds for ever, so nothing kept grows old.
    """

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, float]] = {}

    def from_(self, key: str, start_ms: int) -> float:
        """In ms; infinite when there is none."""
        asked_ms, first_ms = self._found.get(key, (start_ms + 1, 0.0))
        if not asked_ms <= start_ms <= first_ms:
            following = schedule_from_key(key).next_after(start_ms - 1)
            first_ms = math.inf if following is None else following
            if len(self._found) >= SCHEDULES_KEPT:
                self._found.clear()
            self._found[key] = (start_ms, first_ms)
        return first_ms


class Settler:
    """Settling by one leader."""

    def __init__(self, context: LeaderContext) -> None:
        self._context = context
        self._db = context.db
        self._first = _FirstOccurrences()
        self.quarantine = context.job_quarantine
        """Jobs that cannot be settled. Their change stays pending, so nothing they owe is forgotten."""

    async def step(self, now_ms: int, nodes: int) -> Settled:
        """Settle up to `JOBS` jobs. `nodes` share the work."""
        page = await engine_jobs.unsettled(self._db, JOBS, self.quarantine.ids())
        self.quarantine.add({u.job_id: u.why for u in page.unreadable})
        parts: list[Settled | None] = []
        if page.jobs:
            parts = await bisect(
                page.jobs, lambda part: self._settle(part, now_ms, nodes), self.quarantine, id_of=lambda job: job.id
            )
        done = [part for part in parts if part is not None]
        return Settled(
            jobs=sum(d.jobs for d in done),
            executions=sum(d.executions for d in done),
            missed=sum(d.missed for d in done),
            more=page.last is not None,
        )

    async def _settle(self, jobs: Sequence[JobSchedule], now_ms: int, nodes: int) -> Settled:
        missed = await self._record_missed([j for j in jobs if j.past_schedules], now_ms)
        active = [j for j in jobs if j.state is JobState.ACTIVE]
        rows = await self._rows({j.schedule_key for j in active}, now_ms)
        owed: list[tuple[JobSchedule, Sequence[int]]] = []
        for job in active:
            row = rows.get(job.schedule_key)
            dues = await self._occurrences(job, now_ms, now_ms + 1 if row is None else row.covered_ms)
            if dues:
                owed.append((job, dues))
        self._context.trusted_term()
        new_id = self._context.new_batch_id
        planned = plan_batches(owed, nodes, new_id, crowds=self._context.crowds)
        done = await insert_owed(self._db, planned.executions, planned.batches, new_id)
        self._context.tracer.written(planned.executions)
        await self._wake_resumed(jobs)
        self._context.trusted_term()
        await engine_jobs.mark_settled(self._db, [j.change_id for j in jobs if j.change_id is not None])
        log.info("jobs_settled", jobs=len(jobs), executions=done.inserted, adopted=done.adopted)
        return Settled(len(jobs), len(planned.executions), missed)

    async def _rows(self, keys: set[str], now_ms: int) -> dict[str, ScheduleRow]:
        """The rows of these schedules, made where missing, stamped with our term. A schedule that is over has none."""
        if not keys:
            return {}
        term = self._context.trusted_term()
        rows = await schedules.stamp(self._db, list(keys), term)
        fresh = []
        for key in keys - rows.keys():
            first = schedule_from_key(key).next_after(now_ms)
            if first is not None:
                fresh.append(ScheduleRow(key, first, term.number))
        if fresh:
            await schedules.insert_missing(self._db, fresh)
            rows |= await schedules.stamp(self._db, [r.key for r in fresh], term)
            for row in fresh:
                if row.key not in rows:  # a job must not be called settled while the position of its row is unknown
                    raise InvariantBroken(f"the row of schedule {row.key} cannot be read")
        if any(r.term > term.number for r in rows.values()):
            raise TermLost("a schedule carries a newer term")
        return rows

    async def _occurrences(self, job: JobSchedule, now_ms: int, covered_ms: int) -> list[int]:
        """The occurrences that this job owes before its row. Those too far in the past become a range to catch up."""
        start = max(job.active_from_ms, job.start_ms or 0)
        if self._first.from_(job.schedule_key, start) >= covered_ms:
            return []
        if start < now_ms - GRACE_MS:
            to_ms = min(now_ms, covered_ms)
            if self._first.from_(job.schedule_key, start) < to_ms:
                past = Backfill(
                    id=backfill_id(job.schedule_key, job.id, start),
                    key=job.schedule_key,
                    job_id=job.id,
                    from_ms=start,
                    to_ms=to_ms,
                    at_ms=now_ms,
                    cursor_ms=start,
                )
                await backfills.open_ranges(self._db, past)
            start = now_ms
        if start >= covered_ms:
            return []
        schedule = schedule_from_key(job.schedule_key)
        return [t for t in schedule.between(start, covered_ms, OCCURRENCES) if job.owes(t)]

    async def _record_missed(self, changed: Sequence[JobSchedule], now_ms: int) -> int:
        """Record as `missed` what jobs owed before their changes and what was never written. Returns how many."""
        pasts = [(j, past, to_ms) for j in changed for past, to_ms in j.unsettled_past]
        keys = {past.schedule_key for _, past, _ in pasts}
        if not keys:
            return 0
        rows = await schedules.get_many(self._db, keys)
        caught_up_to = await backfills.reached(self._db, keys)
        candidates = []
        for job, past, to_ms in pasts:
            row = rows.get(past.schedule_key)
            written_to = [to_ms - GRACE_MS if row is None else row.next_ms]
            # Ranges of other jobs say nothing about this one.
            written_to += [at for of in (None, job.id) if (at := caught_up_to.get((past.schedule_key, of))) is not None]
            candidates.append(beginning_at(job, past, min(written_to), to_ms))
        return await record_unwritten(self._context, candidates, now_ms)

    async def _wake_resumed(self, jobs: Sequence[JobSchedule]) -> None:
        """Executions of these jobs that waited for the end of a pause may go on."""
        resumed = [
            j.id
            for j in jobs
            if j.state is not JobState.PAUSED
            # A change and a pause in one request end a period by the change.
            and any(p.ended_by in ("pause", "") or j.active_from_ms > to + 1 for p, to in j.unsettled_past)
        ]
        if resumed:
            await paused_batches.wake(self._db, resumed)
