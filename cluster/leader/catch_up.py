"""Catching up: ranges in `backfills` -> late executions, oldest first, a bounded number alive at a time.

First what will not run is counted, once per job, as a `missed` range; then what will run is written down slice by
slice. Every step may be repeated: ids are those of the occurrences, and what is final already is found in history.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from cluster.core.catch_up_policy import missed_reason, split, window_start_ms
from cluster.core.errors import OwnershipLost, StoreError
from cluster.core.execution.planning import MAX_BATCH, Grouping, plan_batches
from cluster.core.lifecycle import JobState
from cluster.core.schedule.schedule import schedule_from_key
from cluster.leader.quarantine import Quarantine
from cluster.store import backfills, batches, engine_jobs, history
from cluster.store.engine_jobs import JobSchedulePage
from cluster.store.enqueue import insert_owed
from cluster.store.history import MissedRange

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.core.execution.model import JobSchedule
    from cluster.leader.context import LeaderContext
    from cluster.store.backfills import Backfill

log = structlog.get_logger()

LIVE_BATCHES = 64
"""Late batches alive at once: enough to keep every node busy, few enough that current work never waits for them."""
JOBS = 1000
SLICE_MS = 10_000
COUNTED = 20_000
"""The most occurrences looked at in one step: what is due now waits for no more than that. A longer range makes several
missed ranges of a job."""


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """What one step did."""

    executions: int = 0
    missed: int = 0
    more: bool = False


class CatchUp:
    """Catching up by one leader."""

    def __init__(self, context: LeaderContext) -> None:
        self._context = context
        self._db = context.db
        self._trusted = context.trusted_term
        self._new_id = context.new_batch_id
        self._retention_days = context.retention_days
        self._grouping = Grouping(MAX_BATCH, int(context.timings.prefetch * 1000), late=True)
        self._dues: tuple[tuple[str, int], list[int]] = (("", 0), [])
        self.quarantine = Quarantine("backfill")

    async def step(self, now_ms: int) -> CaughtUp:
        """One page of jobs of the oldest range, if there is room for late work."""
        b, unreadable = await backfills.oldest(self._db, self.quarantine.ids())
        self.quarantine.add(unreadable)
        if b is None:
            self._dues = (("", 0), [])
            return CaughtUp(more=bool(unreadable))
        try:
            return await self._one(b, now_ms)
        except (OwnershipLost, StoreError):  # the database is at fault, not one of these
            raise
        except Exception as exc:  # the other ranges are caught up all the same
            self.quarantine.add_failure(b.id, exc)
            return CaughtUp(more=True)

    async def _one(self, b: Backfill, now_ms: int) -> CaughtUp:
        if not b.missed_recorded:
            return await self._count(b, now_ms)
        if await batches.count_late(self._db, LIVE_BATCHES) >= LIVE_BATCHES:
            return CaughtUp()
        return await self._slice(b, now_ms)

    def _split(self, b: Backfill, job: JobSchedule, dues: Sequence[int], to_ms: int) -> tuple[list[int], list[int]]:
        """What the job owes of these due times, all of the range before `to_ms`, as `(missed, runs)`."""
        days = job.retention_days or self._retention_days
        return split(
            job.catch_up,
            [t for t in dues if job.owes(t)],
            window_start_ms(b.at_ms, job.catch_up_window_seconds, days),
            owes_later=job.catch_up == "latest" and _owes_from(b, job, to_ms),
        )

    async def _jobs(self, b: Backfill, after: str | None) -> JobSchedulePage:
        if b.job_id is not None:
            job = await engine_jobs.get_schedule(self._db, b.job_id)
            running = job is not None and job.state in (JobState.ACTIVE, JobState.COMPLETED)
            return JobSchedulePage(
                [job] if job is not None and running and job.schedule_key == b.key and after is None else []
            )
        return await engine_jobs.of_schedules(self._db, [b.key], JOBS, after=after, include_completed=True)

    async def _changing(self, b: Backfill) -> bool:
        """Asked after its jobs were read: whether settling has to see first how far this range has come.

        A job that was changed meanwhile is not among them, or not as it was. What it owed before is settling's to tell.
        """
        unsettleable = self._context.job_quarantine.ids()
        return bool(await engine_jobs.keys_with_pending_change(self._db, [b.key], JOBS, unsettleable))

    async def _segment(self, b: Backfill, start_ms: int) -> list[int]:
        """The next occurrences of a range, at most `COUNTED`: a range may be weeks of seconds."""
        if self._dues[0] == (b.id, start_ms):
            return self._dues[1]
        schedule = schedule_from_key(b.key)
        dues: list[int] = []
        start = start_ms
        while len(dues) < COUNTED:
            piece = schedule.between(start, b.to_ms, min(500, COUNTED - len(dues)))
            dues.extend(piece)
            if len(piece) < 500:
                break
            start = piece[-1] + 1
            await asyncio.sleep(0)  # other work on this loop must not wait for a long range
        self._dues = ((b.id, start_ms), dues)
        return dues

    async def _count(self, b: Backfill, now_ms: int) -> CaughtUp:
        """Record what will not run: one page of jobs for one segment of the range, segment by segment."""
        start = b.from_ms if b.missed_recorded_ms is None else b.missed_recorded_ms
        dues = await self._segment(b, start)
        if not dues:
            # Slices before the first run are skipped.
            first_run_ms = b.to_ms if b.first_run_ms is None else b.first_run_ms
            await backfills.save_progress(
                self._db, replace(b, after=None, missed_recorded=True, cursor_ms=max(b.cursor_ms, first_run_ms))
            )
            return CaughtUp(more=True)
        page = await self._jobs(b, b.after)
        if await self._changing(b):
            return CaughtUp()
        ranges = [
            MissedRange(u.job_id, "", dues[0], dues[-1], len(dues), f"the job's document could not be read: {u.why}")
            for u in page.unreadable
        ]
        runs_ms = b.first_run_ms
        for job in page.jobs:
            missed, runs = self._split(b, job, dues, dues[-1] + 1)
            if missed:
                ranges.append(_missed(job, missed, missed_reason(job.catch_up, job.catch_up_window_seconds)))
            if runs:
                runs_ms = runs[0] if runs_ms is None else min(runs_ms, runs[0])
        self._trusted()
        await history.record_missed(self._db, ranges, now_ms, self._retention_days)
        reached = start if page.last is not None else dues[-1] + 1
        await backfills.save_progress(
            self._db, replace(b, after=page.last, missed_recorded_ms=reached, first_run_ms=runs_ms)
        )
        if ranges:
            log.warning("occurrences_missed", jobs=len(ranges), occurrences=sum(r.count for r in ranges))
        return CaughtUp(missed=sum(r.count for r in ranges), more=True)

    async def _slice(self, b: Backfill, now_ms: int) -> CaughtUp:
        """Write down one page of jobs of one slice of time."""
        schedule = schedule_from_key(b.key)
        first = schedule.between(b.cursor_ms, b.to_ms, 1)
        if not first:
            await backfills.close(self._db, b)
            log.info("catch_up_done", schedule=b.key, job=b.job_id, from_ms=b.from_ms, to_ms=b.to_ms)
            return CaughtUp(more=True)
        until = b.until_ms or min(b.to_ms, first[0] + SLICE_MS)
        dues = schedule.between(first[0], until, SLICE_MS // 1000 + 1)
        page = await self._jobs(b, b.after)
        if await self._changing(b):
            return CaughtUp()
        owed: list[tuple[JobSchedule, Sequence[int]]] = []
        left_out: list[tuple[JobSchedule, list[int]]] = []
        for job in page.jobs:
            not_run, runs = self._split(b, job, dues, until)
            if runs:
                owed.append((job, runs))
            if not_run:
                left_out.append((job, not_run))
        missed = await self._untold(b, left_out)
        planned = plan_batches(owed, self._grouping, 1, self._new_id)
        self._trusted()
        await history.record_missed(self._db, missed, now_ms, self._retention_days)
        await insert_owed(self._db, planned.executions, planned.batches, self._new_id)
        self._context.tracer.written(planned.executions)
        reached = (
            replace(b, after=page.last, until_ms=until)
            if page.last is not None
            else replace(b, after=None, until_ms=None, cursor_ms=until)
        )
        await backfills.save_progress(self._db, reached)
        return CaughtUp(len(planned.executions), sum(r.count for r in missed), more=True)

    async def _untold(self, b: Backfill, left_out: Sequence[tuple[JobSchedule, list[int]]]) -> list[MissedRange]:
        """What will not run and was not counted as missed: the job's policy was another when the range was counted."""
        if not left_out:
            return []
        told = await history.missed_ranges(self._db, [j.id for j, _ in left_out], b.from_ms, b.to_ms)
        found = []
        for job, dues in left_out:
            known = told.get(job.id, ())
            rest = [t for t in dues if not any(first <= t <= last for first, last in known)]
            if rest:
                why = f"catchUp was changed to {job.catch_up} while this was being caught up"
                found.append(_missed(job, rest, why))
        return found


def _owes_from(b: Backfill, job: JobSchedule, start_ms: int) -> bool:
    """Whether the job owes anything of the range from an instant on."""
    start = max(start_ms, job.active_from_ms, job.start_ms or 0)
    first = schedule_from_key(b.key).next_after(start - 1)
    return first is not None and first < b.to_ms and job.owes(first)


def _missed(job: JobSchedule, dues: Sequence[int], reason: str) -> MissedRange:
    return MissedRange(
        job_id=job.id,
        schedule_version=job.schedule_version,
        first_ms=dues[0],
        last_ms=dues[-1],
        count=len(dues),
        reason=reason,
        retention_days=job.retention_days,
    )
