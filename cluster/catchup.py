"""Catching up: ranges in `backfills` -> late executions, oldest first, a bounded number alive at a time.

First what will not run is counted, once per job, as a `missed` range; then what will run is written down slice by
slice. Every step may be repeated: ids are those of the occurrences, and what is final already is found in history.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from cluster.core.lifecycle import JobState
from cluster.core.planning import MAX_BATCH, Grouping, plan
from cluster.core.schedule import schedule_from_key
from cluster.store import backfills, batches, definitions, history
from cluster.store.history import MissedRange
from cluster.store.owing import owe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cluster.core.model import Execution, Owing, Term
    from cluster.core.timings import Timings
    from cluster.store.backfills import Backfill
    from cluster.store.client import Database

log = structlog.get_logger()

LIVE_BATCHES = 64
"""Late batches alive at once: enough to keep every node busy, few enough that current work never waits for them."""
JOBS = 1000
SLICE_MS = 10_000
COUNTED = 100_000
"""The most occurrences counted for one missed range; a longer one says so."""


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """What one step did."""

    executions: int = 0
    missed: int = 0
    more: bool = False


class CatchUp:
    """Catching up by one leader."""

    def __init__(
        self,
        db: Database,
        timings: Timings,
        trusted: Callable[[], Term],
        new_id: Callable[[], str],
        retention_days: float,
    ) -> None:
        self._db = db
        self._trusted = trusted
        self._new_id = new_id
        self._retention_days = retention_days
        self.written: Callable[[Sequence[Execution]], None] = lambda _: None
        """Told what has been written down; the leader traces it if anybody wants to see it."""
        self._grouping = Grouping(MAX_BATCH, int(timings.prefetch * 1000), late=True)
        self._dues: tuple[str, list[int]] = ("", [])

    async def step(self, now_ms: int) -> CaughtUp:
        """One page of jobs of the oldest range, if there is room for late work."""
        b = await backfills.oldest(self._db)
        if b is None:
            self._dues = ("", [])
            return CaughtUp()
        if not b.counted:
            return await self._count(b, now_ms)
        if await batches.count_late(self._db, LIVE_BATCHES) >= LIVE_BATCHES:
            return CaughtUp()
        return await self._slice(b)

    def _window_start(self, b: Backfill, job: Owing) -> int:
        days = job.retention_days or self._retention_days
        # Never beyond the retention: past it, history cannot tell that an occurrence was sent.
        window = min(job.catch_up_window_seconds * 1000, int(days * history.DAY_MS / 2))
        return b.at_ms - window

    async def _jobs(self, b: Backfill, after: str | None) -> list[Owing]:
        if b.job_id is not None:
            job = await definitions.owing_one(self._db, b.job_id)
            running = job is not None and job.state in (JobState.ACTIVE, JobState.COMPLETED)
            return [job] if job is not None and running and job.schedule_key == b.key and after is None else []
        return await definitions.owing(self._db, [b.key], JOBS, after=after, completed=True)

    async def _occurrences(self, b: Backfill) -> list[int]:
        """Every occurrence of the range, up to `COUNTED`; computed in small pieces, since a range may be weeks."""
        if self._dues[0] == b.id and b.after is not None:
            return self._dues[1]
        schedule = schedule_from_key(b.key)
        dues: list[int] = []
        start = b.from_ms
        while len(dues) < COUNTED:
            piece = schedule.between(start, b.to_ms, 500)
            dues.extend(piece)
            if len(piece) < 500:
                break
            start = piece[-1] + 1
            await asyncio.sleep(0)  # other work on this loop must not wait for a long range
        self._dues = (b.id, dues)
        return dues

    async def _count(self, b: Backfill, now_ms: int) -> CaughtUp:
        """Record what will not run, for one page of jobs."""
        jobs = await self._jobs(b, b.after)
        dues = await self._occurrences(b)
        ranges = []
        for job in jobs:
            owed = [t for t in dues if job.owes(t)]
            missed = _not_run(job, owed, self._window_start(b, job))
            if missed:
                ranges.append(
                    MissedRange(
                        job.id, job.schedule_version, missed[0], missed[-1], len(missed), _why(job), job.retention_days
                    )
                )
        self._trusted()
        await history.record_missed(self._db, ranges, now_ms, self._retention_days)
        full = b.job_id is None and len(jobs) == JOBS
        await backfills.progress(self._db, replace(b, after=jobs[-1].id if full else None, counted=not full))
        if ranges:
            log.warning("occurrences_missed", jobs=len(ranges), occurrences=sum(r.count for r in ranges))
        return CaughtUp(missed=sum(r.count for r in ranges), more=True)

    async def _slice(self, b: Backfill) -> CaughtUp:
        """Write down one page of jobs of one slice of time."""
        schedule = schedule_from_key(b.key)
        first = schedule.between(b.cursor_ms, b.to_ms, 1)
        if not first:
            await backfills.close(self._db, b)
            log.info("catch_up_done", schedule=b.key, job=b.job_id, from_ms=b.from_ms, to_ms=b.to_ms)
            return CaughtUp(more=True)
        until = b.until_ms or min(b.to_ms, first[0] + SLICE_MS)
        dues = schedule.between(first[0], until, SLICE_MS // 1000 + 1)
        jobs = await self._jobs(b, b.after)
        owed: list[tuple[Owing, Sequence[int]]] = []
        for job in jobs:
            start = self._window_start(b, job)
            mine = [t for t in dues if t >= start and job.owes(t)]
            if job.catch_up == "none":
                mine = []
            elif job.catch_up == "latest" and mine:
                mine = mine[-1:] if not _later(schedule.between(until, b.to_ms, 500), job) else []
            if mine:
                owed.append((job, mine))
        planned = plan(owed, self._grouping, 1, self._new_id)
        self._trusted()
        await owe(self._db, planned.executions, planned.batches, self._new_id)
        self.written(planned.executions)
        full = b.job_id is None and len(jobs) == JOBS
        reached = (
            replace(b, after=jobs[-1].id, until_ms=until)
            if full
            else replace(b, after=None, until_ms=None, cursor_ms=until)
        )
        await backfills.progress(self._db, reached)
        return CaughtUp(len(planned.executions), more=True)


def _later(dues: list[int], job: Owing) -> bool:
    return any(job.owes(t) for t in dues)


def _not_run(job: Owing, owed: list[int], window_start_ms: int) -> list[int]:
    """The occurrences that the job's policy leaves out, in order."""
    if job.catch_up == "none":
        return owed
    inside = [t for t in owed if t >= window_start_ms]
    if job.catch_up == "latest":
        return [t for t in owed if not inside or t != inside[-1]]
    return owed[: len(owed) - len(inside)]


def _why(job: Owing) -> str:
    if job.catch_up == "all":
        return (
            f"nobody was there to send it, and it was older than catchUpWindowSeconds ({job.catch_up_window_seconds})"
        )
    return f"nobody was there to send it, and catchUp is {job.catch_up}"
