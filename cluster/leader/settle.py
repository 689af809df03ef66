"""Settling: a job that was created, changed or resumed gets what it owes between then and where its row has come to.

Jobs are read first and their rows second. Everything before the row's `covered_ms` is written here for this job;
everything from there on is the main pass's, which reads the job after it was changed. Both write the same ids.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from cluster.core.errors import InvariantBroken, OwnershipLost, StoreError, TermLost
from cluster.core.execution.planning import MAX_BATCH, Grouping, plan_batches
from cluster.core.ids import execution_id
from cluster.core.lifecycle import JobState
from cluster.core.schedule.schedule import schedule_from_key
from cluster.leader.quarantine import Quarantine
from cluster.store import backfills, engine_jobs, executions, history, schedules
from cluster.store.backfills import Backfill, backfill_id
from cluster.store.enqueue import insert_owed
from cluster.store.history import MissedRange
from cluster.store.schedules import ScheduleRow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cluster.core.execution.model import Execution, JobSchedule, Term
    from cluster.core.timings import Timings
    from cluster.store.mongo.client import Database

log = structlog.get_logger()

JOBS = 1000
GRACE_MS = 10_000
AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Settled:
    """What one step did. `more`: as many jobs as fit into one step were waiting."""

    jobs: int = 0
    executions: int = 0
    missed: int = 0
    more: bool = False


class _Firsts:
    """First occurrences at or after an instant, shared by the jobs of one step: most of an import have few schedules."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, float]] = {}

    def from_(self, key: str, start_ms: int) -> float:
        """In ms; infinite when there is none."""
        asked, found = self._known.get(key, (start_ms + 1, 0.0))
        if not asked <= start_ms <= found:
            following = schedule_from_key(key).next_after(start_ms - 1)
            found = math.inf if following is None else following
            self._known[key] = (start_ms, found)
        return found


class Settler:
    """Settling by one leader."""

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
        self._grouping = Grouping(MAX_BATCH, int(timings.prefetch * 1000))
        self.quarantine = Quarantine("job")
        """Jobs that cannot be settled. They keep their marks, so nothing they owe is forgotten."""

    async def step(self, now_ms: int, nodes: int) -> Settled:
        """Settle up to `JOBS` jobs. `nodes` is how many share the work."""
        page = await engine_jobs.unsettled(self._db, JOBS, self.quarantine.ids())
        self.quarantine.add({u.job_id: u.why for u in page.unreadable})
        done = await self._isolated(page.jobs, now_ms, nodes) if page.jobs else Settled()
        return replace(done, more=page.last is not None)

    async def _isolated(self, jobs: list[JobSchedule], now_ms: int, nodes: int) -> Settled:
        """Settle these; if that fails, find the job it fails for by halving and set it aside."""
        try:
            return await self._settle(jobs, now_ms, nodes)
        except (OwnershipLost, StoreError):  # the database is at fault, not one of these jobs
            raise
        except Exception as exc:
            if len(jobs) == 1:
                self.quarantine.add_failure(jobs[0].id, exc)
                return Settled()
        half = len(jobs) // 2
        a = await self._isolated(jobs[:half], now_ms, nodes)
        b = await self._isolated(jobs[half:], now_ms, nodes)
        return Settled(a.jobs + b.jobs, a.executions + b.executions, a.missed + b.missed)

    async def _settle(self, jobs: list[JobSchedule], now_ms: int, nodes: int) -> Settled:
        missed = await self._record_forgone([j for j in jobs if j.past_schedules], now_ms)
        active = [j for j in jobs if j.state is JobState.ACTIVE]
        rows = await self._rows({j.schedule_key for j in active}, now_ms)
        owed: list[tuple[JobSchedule, Sequence[int]]] = []
        first = _Firsts()
        for job in active:
            row = rows.get(job.schedule_key)
            mine = await self._occurrences(job, first, now_ms, now_ms + 1 if row is None else row.covered_ms)
            if mine:
                owed.append((job, mine))
        self._trusted()
        planned = plan_batches(owed, self._grouping, nodes, self._new_id)
        done = await insert_owed(self._db, planned.executions, planned.batches, self._new_id)
        self.written(planned.executions)
        self._trusted()
        await engine_jobs.mark_settled(self._db, [j.change_id for j in jobs if j.change_id is not None])
        log.info("jobs_settled", jobs=len(jobs), executions=done.inserted, reowned=done.adopted)
        return Settled(len(jobs), len(planned.executions), missed)

    async def _rows(self, keys: set[str], now_ms: int) -> dict[str, ScheduleRow]:
        """The rows of these schedules, made where missing, on our term. A schedule that is over has none."""
        if not keys:
            return {}
        term = self._trusted()
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
                if row.key not in rows:  # without knowing where it has come to, nothing may be called settled
                    raise InvariantBroken(f"the row of schedule {row.key} cannot be read")
        if any(r.term > term.number for r in rows.values()):
            raise TermLost("a schedule carries a newer term")
        return rows

    async def _occurrences(self, job: JobSchedule, first: _Firsts, now_ms: int, covered_ms: int) -> list[int]:
        """What this job owes before its row; what lies too far in the past becomes a range to catch up."""
        start = max(job.active_from_ms, job.start_ms or 0)
        if first.from_(job.schedule_key, start) >= covered_ms:
            return []
        if start < now_ms - GRACE_MS:
            to_ms = min(now_ms, covered_ms)
            if first.from_(job.schedule_key, start) < to_ms:
                b = Backfill(
                    backfill_id(job.schedule_key, job.id, start), job.schedule_key, job.id, start, to_ms, now_ms, start
                )
                await backfills.open_ranges(self._db, b)
            start = now_ms
        if start >= covered_ms:
            return []
        schedule = schedule_from_key(job.schedule_key)
        return [t for t in schedule.between(start, covered_ms, 10_000) if job.owes(t)]

    async def _record_forgone(self, changed: Sequence[JobSchedule], now_ms: int) -> int:
        """Occurrences that a job owed before its changes and that nobody had written down yet: they are `missed`.
        Returns how many.

        There are some only if nobody led for longer than the look-ahead, while catching up, or if a job was changed
        twice before the leader looked at it. What was written down is cancelled by the node that finds the job changed,
        which leaves a record too. A job may have been changed several times since, so every period is looked at that
        history can still tell about.
        """
        told_ms = now_ms - int(self._retention_days * history.DAY_MS / 2)
        pasts = [(j, past, to_ms) for j in changed for past, to_ms in j.past_schedules if to_ms > told_ms]
        keys = {past.schedule_key for _, past, _ in pasts}
        if not keys:
            return 0
        rows, catching_up = (
            await schedules.get_many(self._db, keys),
            await backfills.reached_by_schedule(self._db, keys),
        )
        ranges: list[MissedRange] = []
        for job, past, to_ms in pasts:
            row = rows.get(past.schedule_key)
            written = to_ms - GRACE_MS if row is None else row.next_ms
            written = min(written, catching_up.get(past.schedule_key, written))
            # One that ended before it was settled: what it owed was nobody's to write, wherever the row had come to.
            start = past.active_from_ms if past.change_id is not None else max(written, past.active_from_ms)
            while start <= to_ms:  # what is due at the very instant of a change is the earlier schedule's
                dues = schedule_from_key(past.schedule_key).between(start, to_ms + 1, AT_ONCE)
                found = await self._unwritten(past, [t for t in dues if past.owes(t)])
                ranges += [replace(r, retention_days=job.retention_days) for r in found]
                start = dues[-1] + 1 if len(dues) == AT_ONCE else to_ms + 1
        self._trusted()
        await history.record_missed(self._db, ranges, now_ms, self._retention_days)
        return sum(r.count for r in ranges)

    async def _unwritten(self, past: JobSchedule, dues: Sequence[int]) -> list[MissedRange]:
        ids = {execution_id(past.id, t): t for t in dues}
        there = (
            set(await executions.owed(self._db, ids)) | await history.existing_ids(self._db, ids) if ids else set[str]()
        )
        lost = [t for i, t in ids.items() if i not in there]
        if not lost:
            return []
        reason = "the job was changed before anybody could send it"
        return [MissedRange(past.id, past.schedule_version, lost[0], lost[-1], len(lost), reason)]
