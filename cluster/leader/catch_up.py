"""Catching up: ranges in `backfills` -> late executions, oldest first, a bounded number alive at a time.

First the occurrences that do not run are recorded, as `missed` ranges of each job. Then the ones that run are written
slice by slice. Each step may be repeated: ids are those of the occurrences, and history knows the ones that are final.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from cluster.core.catch_up_policy import missed_reason, split, window_start_ms
from cluster.core.errors import OwnershipLost, StoreError
from cluster.core.execution.planning import plan_batches
from cluster.core.lifecycle import JobState
from cluster.core.schedule.schedule import schedule_from_key
from cluster.leader.missed import missed_range, unreadable_range
from cluster.leader.quarantine import Quarantine
from cluster.leader.unwritten import record_left_out
from cluster.store import backfills, batches, engine_jobs, missed_ranges
from cluster.store.engine_jobs import JobSchedulePage
from cluster.store.enqueue import insert_owed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.core.execution.model import JobSchedule
    from cluster.leader.context import LeaderContext
    from cluster.store.backfills import Backfill
    from cluster.store.missed_ranges import MissedRange

log = structlog.get_logger()

LIVE_BATCHES = 64
"""Late batches alive at once: enough to keep every node busy, few enough that current work never waits for them."""
JOBS = 1000
"""Jobs read in one step."""
SLICE_MS = 10_000
OCCURRENCES = 20_000
"""Occurrences of one segment: work that is due now waits for no more than these. A longer range makes several missed
ranges of a job."""
OCCURRENCES_PER_TURN = 500
"""After computing so many, the event loop gets its turn."""


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """The result of one step."""

    executions: int = 0
    missed: int = 0
    more: bool = False
    idle: bool = False
    """There is no range."""


class CatchUp:
    """Catching up by one leader."""

    def __init__(self, context: LeaderContext) -> None:
        self._context = context
        self._db = context.db
        self._segment: tuple[tuple[str, int], list[int]] = (("", 0), [])
        self.quarantine = Quarantine("backfill")

    async def step(self, now_ms: int) -> CaughtUp:
        """One page of jobs of the oldest range, if there is room for late work."""
        backfill, unreadable = await backfills.oldest(self._db, self.quarantine.ids())
        self.quarantine.add(unreadable)
        if backfill is None:
            self._segment = (("", 0), [])
            return CaughtUp(more=bool(unreadable), idle=not unreadable)
        try:
            return await self._continue(backfill, now_ms)
        except (OwnershipLost, StoreError):  # these do not come of the range
            raise
        except Exception as exc:  # the other ranges are caught up nevertheless
            self.quarantine.add_failure(backfill.id, exc)
            return CaughtUp(more=True)

    async def _continue(self, backfill: Backfill, now_ms: int) -> CaughtUp:
        if not backfill.missed_recorded:
            return await self._record_missed(backfill, now_ms)
        if await batches.count_late(self._db, LIVE_BATCHES) >= LIVE_BATCHES:
            return CaughtUp()
        return await self._write_slice(backfill, now_ms)

    def _split(
        self, backfill: Backfill, job: JobSchedule, dues: Sequence[int], to_ms: int
    ) -> tuple[list[int], list[int]]:
        """The due times that the job owes of these, all of the range before `to_ms`, as `(missed, runs)`."""
        days = job.retention_days or self._context.retention_days
        return split(
            job.catch_up,
            [t for t in dues if job.owes(t)],
            window_start_ms(backfill.at_ms, job.catch_up_window_seconds, days),
            owes_later=job.catch_up == "latest" and _owes_from(backfill, job, to_ms),
        )

    async def _jobs(self, backfill: Backfill, after: str | None) -> JobSchedulePage:
        if backfill.job_id is None:
            return await engine_jobs.of_schedules(self._db, [backfill.key], JOBS, after=after, include_completed=True)
        job = await engine_jobs.get_schedule(self._db, backfill.job_id)
        if job is None or after is not None or job.schedule_key != backfill.key:
            return JobSchedulePage([])
        return JobSchedulePage([job] if job.state in (JobState.ACTIVE, JobState.COMPLETED) else [])

    async def _record_left_out(self, backfill: Backfill, cursor_ms: int, now_ms: int) -> None:
        """Before the cursor moves on: what it passes of jobs that were changed meanwhile is recorded (see `unwritten`)."""
        await record_left_out(self._context, {backfill.key: (backfill.cursor_ms, cursor_ms)}, now_ms)

    async def _segment_from(self, backfill: Backfill, start_ms: int) -> list[int]:
        """The next occurrences of a range, at most `OCCURRENCES`: a range may be weeks of seconds."""
        if self._segment[0] == (backfill.id, start_ms):
            return self._segment[1]
        schedule = schedule_from_key(backfill.key)
        dues: list[int] = []
        start = start_ms
        while len(dues) < OCCURRENCES:
            piece = schedule.between(start, backfill.to_ms, min(OCCURRENCES_PER_TURN, OCCURRENCES - len(dues)))
            dues.extend(piece)
            if len(piece) < OCCURRENCES_PER_TURN:
                break
            start = piece[-1] + 1
            await asyncio.sleep(0)  # other work on this event loop must not wait for a long range
        self._segment = ((backfill.id, start_ms), dues)
        return dues

    async def _record_missed(self, backfill: Backfill, now_ms: int) -> CaughtUp:
        """Record the occurrences that do not run: one page of jobs for one segment of the range, segment by segment."""
        start = backfill.from_ms if backfill.missed_recorded_ms is None else backfill.missed_recorded_ms
        dues = await self._segment_from(backfill, start)
        if not dues:
            # Slices before the first run are skipped.
            skip_to_ms = backfill.to_ms if backfill.first_run_ms is None else backfill.first_run_ms
            cursor_ms = max(backfill.cursor_ms, skip_to_ms)
            await self._record_left_out(backfill, cursor_ms, now_ms)
            await backfills.save_progress(
                self._db, replace(backfill, after=None, missed_recorded=True, cursor_ms=cursor_ms)
            )
            return CaughtUp(more=True)
        page = await self._jobs(backfill, backfill.after)
        ranges = [unreadable_range(job, dues) for job in page.unreadable]
        first_run_ms = backfill.first_run_ms
        for job in page.jobs:
            missed, runs = self._split(backfill, job, dues, dues[-1] + 1)
            if missed:
                ranges.append(missed_range(job, missed, missed_reason(job.catch_up, job.catch_up_window_seconds)))
            if runs:
                first_run_ms = runs[0] if first_run_ms is None else min(first_run_ms, runs[0])
        self._context.trusted_term()
        await missed_ranges.record(self._db, ranges, now_ms, self._context.retention_days)
        reached_ms = start if page.last is not None else dues[-1] + 1
        await backfills.save_progress(
            self._db,
            replace(backfill, after=page.last, missed_recorded_ms=reached_ms, first_run_ms=first_run_ms),
        )
        if ranges:
            log.warning("occurrences_missed", jobs=len(ranges), occurrences=sum(r.count for r in ranges))
        return CaughtUp(missed=sum(r.count for r in ranges), more=True)

    async def _write_slice(self, backfill: Backfill, now_ms: int) -> CaughtUp:
        """Write the executions of one page of jobs in one slice of time."""
        schedule = schedule_from_key(backfill.key)
        first = schedule.between(backfill.cursor_ms, backfill.to_ms, 1)
        if not first:
            await backfills.close(self._db, backfill)
            log.info(
                "catch_up_done",
                schedule=backfill.key,
                job=backfill.job_id,
                from_ms=backfill.from_ms,
                to_ms=backfill.to_ms,
            )
            return CaughtUp(more=True)
        until = backfill.until_ms or min(backfill.to_ms, first[0] + SLICE_MS)
        dues = schedule.between(first[0], until, SLICE_MS // 1000 + 1)
        page = await self._jobs(backfill, backfill.after)
        owed: list[tuple[JobSchedule, Sequence[int]]] = []
        left_out: list[tuple[JobSchedule, list[int]]] = []
        for job in page.jobs:
            not_run, runs = self._split(backfill, job, dues, until)
            if runs:
                owed.append((job, runs))
            if not_run:
                left_out.append((job, not_run))
        missed = await self._newly_missed(backfill, left_out)
        new_id = self._context.new_batch_id
        planned = plan_batches(owed, 1, new_id, late=True)
        self._context.trusted_term()
        await missed_ranges.record(self._db, missed, now_ms, self._context.retention_days)
        await insert_owed(self._db, planned.executions, planned.batches, new_id)
        self._context.tracer.written(planned.executions)
        if page.last is None:
            await self._record_left_out(backfill, until, now_ms)
        reached = (
            replace(backfill, after=page.last, until_ms=until)
            if page.last is not None
            else replace(backfill, after=None, until_ms=None, cursor_ms=until)
        )
        await backfills.save_progress(self._db, reached)
        return CaughtUp(len(planned.executions), sum(r.count for r in missed), more=True)

    async def _newly_missed(
        self, backfill: Backfill, left_out: Sequence[tuple[JobSchedule, list[int]]]
    ) -> list[MissedRange]:
        """The occurrences that do not run and are not recorded: the job had another policy when the range was recorded."""
        if not left_out:
            return []
        recorded = await missed_ranges.between(
            self._db, [job.id for job, _ in left_out], backfill.from_ms, backfill.to_ms
        )
        ranges = []
        for job, dues in left_out:
            recorded_of_job = recorded.get(job.id, ())
            missed = [t for t in dues if not any(first <= t <= last for first, last in recorded_of_job)]
            if missed:
                reason = f"catchUp was changed to {job.catch_up} during the catch-up"
                ranges.append(missed_range(job, missed, reason))
        return ranges


def _owes_from(backfill: Backfill, job: JobSchedule, start_ms: int) -> bool:
    """Whether the job owes anything of the range from an instant on."""
    start = max(start_ms, job.active_from_ms, job.start_ms or 0)
    first = schedule_from_key(backfill.key).next_after(start - 1)
    return first is not None and first < backfill.to_ms and job.owes(first)
