"""The main pass: due rows of `schedules` -> executions and batches -> rows moved on. One bounded chunk a step.

Only the leader of a term calls this, from one sequential loop. Each row is stamped with the term before its jobs are
read, so a leader that was replaced meanwhile cannot move the row. The executions that it inserted late are found in
history.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from cluster.core.errors import TermLost
from cluster.core.execution.planning import plan_batches
from cluster.core.schedule.schedule import schedule_from_key
from cluster.leader.missed import unreadable_range
from cluster.leader.quarantine import Quarantine, bisect
from cluster.leader.unwritten import record_left_out
from cluster.store import backfills, engine_jobs, missed_ranges, schedules
from cluster.store.backfills import Backfill, backfill_id
from cluster.store.engine_jobs import JobSchedulePage
from cluster.store.enqueue import insert_owed
from cluster.store.schedules import PassCursor, ScheduleRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.core.execution.model import JobSchedule
    from cluster.leader.context import LeaderContext
    from cluster.store.engine_jobs import UnreadableJob

log = structlog.get_logger()

ROWS = 200
"""Rows read in one step."""
JOBS = 5000
"""Jobs read in one step; with it the executions of one step are bounded by `JOBS` x occurrences in one stride."""
OCCURRENCES = 20_000
"""When a chunk has so many occurrences, its other rows wait for the next step."""
ROW_OCCURRENCES = 200
"""Occurrences of one row taken in one step."""
GRACE_MS = 10_000
"""A row further behind than this is caught up as late work instead of being sent as if it were due now."""


@dataclass(frozen=True, slots=True)
class Materialised:
    """The result of one step. `more`: there is more to do before the look-ahead is full."""

    executions: int = 0
    rows: int = 0
    more: bool = False


class Materialiser:
    """The main pass of one leader."""

    def __init__(self, context: LeaderContext) -> None:
        self._context = context
        self._db = context.db
        timings = context.timings
        self._lookahead_ms = int(timings.lookahead * 1000)
        self._reach_ms = int((timings.lookahead + timings.stride) * 1000)
        self.quarantine = Quarantine("schedule")
        """Schedules that cannot be materialised. Their rows do not move, so what they owe is caught up later."""

    async def step(self, now_ms: int, nodes: int) -> Materialised:
        """Write the next chunk of executions that come due within the look-ahead. `nodes` share the work."""
        rows, unreadable = await schedules.due(self._db, now_ms + self._lookahead_ms, ROWS, self.quarantine.ids())
        self.quarantine.add(unreadable)
        if not rows:
            return Materialised(more=bool(unreadable))
        parts = await bisect(
            rows, lambda part: self._materialise(part, now_ms, nodes), self.quarantine, id_of=lambda row: row.key
        )
        done = [part for part in parts if part is not None]
        if len(parts) == 1 and done:
            return done[0]
        return Materialised(sum(d.executions for d in done), sum(d.rows for d in done), more=True)

    async def _materialise(self, rows: Sequence[ScheduleRow], now_ms: int, nodes: int) -> Materialised:
        stamped = await self._stamp(rows)
        overdue = [r for r in stamped if r.next_ms < now_ms - GRACE_MS]
        if overdue and self._context.clock.held_ms:  # nothing is caught up while the clock is in doubt: the rows wait
            stamped = [r for r in stamped if r.next_ms >= now_ms - GRACE_MS]
            if not stamped:
                return Materialised(rows=0)
        elif overdue:
            await self._catch_up_later(overdue, now_ms)
            return Materialised(rows=len(overdue), more=True)
        unfinished = next((r for r in stamped if r.unfinished), None)
        if unfinished is not None:
            return await self._one_page(unfinished, now_ms, nodes)
        return await self._whole_rows(stamped, now_ms, nodes)

    async def _stamp(self, rows: Sequence[ScheduleRow]) -> list[ScheduleRow]:
        term = self._context.trusted_term()
        if all(r.term == term.number for r in rows):
            return list(rows)
        stamped = await schedules.stamp(self._db, [r.key for r in rows], term)
        if any(r.term > term.number for r in stamped.values()):
            raise TermLost("a schedule carries a newer term")
        return sorted(stamped.values(), key=lambda r: r.next_ms)

    async def _catch_up_later(self, overdue: Sequence[ScheduleRow], now_ms: int) -> None:
        """Write the past as ranges to catch up and move the rows to now. The range is written before the row moves."""
        ranges: list[Backfill] = []
        moves: list[tuple[ScheduleRow, int | None]] = []
        for row in overdue:
            ranges.append(
                Backfill(
                    id=backfill_id(row.key, None, row.next_ms),
                    key=row.key,
                    job_id=None,
                    from_ms=row.next_ms,
                    to_ms=now_ms,
                    at_ms=now_ms,
                    cursor_ms=row.next_ms,
                )
            )
            moves.append((row, schedule_from_key(row.key).next_after(now_ms - 1)))
        # All in one write: with very many schedules behind, the ones that are due now must not wait for each of them.
        await backfills.open_ranges(self._db, *ranges)
        log.warning("schedules_behind", schedules=len(overdue), first=overdue[0].key, from_ms=overdue[0].next_ms)
        await self._advance(moves)

    async def _whole_rows(self, rows: Sequence[ScheduleRow], now_ms: int, nodes: int) -> Materialised:
        """Rows with few jobs each, many of them at once. A row with too many jobs goes page by page."""
        page = JobSchedulePage([])
        taken = list(rows)
        while taken:
            # Only the jobs of one schedule are read in pages; several schedules are read whole or not at all.
            page = await engine_jobs.of_schedules(self._db, [r.key for r in taken], JOBS + 1)
            if page.last is None:
                break
            if len(taken) == 1:
                return await self._one_page(taken[0], now_ms, nodes, page)
            taken = taken[: len(taken) // 2]
        jobs_by_key: dict[str, list[JobSchedule]] = {}
        for job in page.jobs:
            jobs_by_key.setdefault(job.schedule_key, []).append(job)
        unreadable_by_key: dict[str | None, list[UnreadableJob]] = {}
        for unreadable in page.unreadable:
            unreadable_by_key.setdefault(unreadable.key, []).append(unreadable)
        owed: list[tuple[JobSchedule, Sequence[int]]] = []
        moves: list[tuple[ScheduleRow, int | None]] = []
        count = 0
        for row in taken:
            jobs = jobs_by_key.get(row.key, [])
            if not jobs and row.key not in unreadable_by_key:
                moves.append((row, None))  # settling makes the row again when a job needs it
                continue
            dues, next_ms = self._occurrences(row, now_ms)
            await self._record_unreadable(unreadable_by_key.get(row.key, ()), dues, now_ms)
            owed_here = _owed_by(jobs, dues)
            owed += owed_here
            count += sum(len(owed_dues) for _, owed_dues in owed_here)
            moves.append((row, next_ms))
            if count > OCCURRENCES:
                break
        await self._write(owed, nodes)
        await self._record_left_out(
            [(row, now_ms + 1 if next_ms is None else next_ms) for row, next_ms in moves], now_ms
        )
        await self._advance(moves)
        return Materialised(count, len(moves), more=len(moves) < len(rows) or len(rows) == ROWS)

    async def _record_left_out(self, passing: Sequence[tuple[ScheduleRow, int]], now_ms: int) -> None:
        """Before rows move on: what they pass of jobs that were left out is recorded (see `unwritten`).

        `passing`: rows, each with the instant before which it passes everything. A job is left out if it was changed after
        this turn's settling. Such a change is at most as old as the trust in the term, so a row that is further ahead than
        that passes nothing that the job owed before.
        """
        ahead_ms = now_ms + int(self._context.timings.leader_lease * 1000)
        spans = {row.key: (row.next_ms, until_ms) for row, until_ms in passing if row.next_ms < ahead_ms}
        await record_left_out(self._context, spans, now_ms)

    async def _one_page(
        self, row: ScheduleRow, now_ms: int, nodes: int, page: JobSchedulePage | None = None
    ) -> Materialised:
        """One page of the jobs of one row; a cursor in the row says how far the pass came. `page`: the first one, if it was read."""
        schedule = schedule_from_key(row.key)
        if row.unfinished:
            until, after = row.unfinished.until_ms, row.unfinished.after
        else:
            until, after = self._pass_end(row, now_ms), None
        dues = schedule.between(row.next_ms, until, OCCURRENCES)
        if page is None:
            page = await engine_jobs.of_schedules(self._db, [row.key], JOBS, after=after)
        owed = _owed_by(page.jobs, dues)
        await self._record_unreadable(page.unreadable, dues, now_ms)
        await self._write(owed, nodes)
        count = sum(len(owed_dues) for _, owed_dues in owed)
        if page.last is not None:
            cursor = PassCursor(page.last, until)
            if not await schedules.save_cursor(self._db, row, cursor, self._context.trusted_term()):
                raise TermLost("a schedule was moved by another leader")
            return Materialised(count, 0, more=True)
        await self._record_left_out([(row, until)], now_ms)
        await self._advance([(row, schedule.next_after(until - 1))])
        return Materialised(count, 1, more=True)

    async def _record_unreadable(self, jobs: Sequence[UnreadableJob], dues: Sequence[int], now_ms: int) -> None:
        """Record as `missed` what jobs owe whose documents cannot be read; the row moves on for the other jobs."""
        if not jobs or not dues:
            return
        ranges = [unreadable_range(job, dues) for job in jobs]
        self._context.trusted_term()
        await missed_ranges.record(self._db, ranges, now_ms, self._context.retention_days)

    def _occurrences(self, row: ScheduleRow, now_ms: int) -> tuple[list[int], int | None]:
        """The row's occurrences up to the end of the stride, and the first one after them."""
        schedule = schedule_from_key(row.key)
        dues = schedule.between(row.next_ms, max(row.next_ms + 1, now_ms + self._reach_ms), ROW_OCCURRENCES)
        return dues, schedule.next_after(dues[-1] if dues else row.next_ms)

    def _pass_end(self, row: ScheduleRow, now_ms: int) -> int:
        """Before which instant a pass over the pages of one row writes: each job is read once for several occurrences, as many
        as the stride has and a step can write for a page of jobs.

        So also while the row is behind: one occurrence a pass costs so much more that a loaded leader would stay behind.
        """
        most = max(1, OCCURRENCES // JOBS)
        dues = schedule_from_key(row.key).between(row.next_ms, max(row.next_ms + 1, now_ms + self._reach_ms), most)
        return dues[-1] + 1 if dues else row.next_ms + 1

    async def _write(self, owed: Sequence[tuple[JobSchedule, Sequence[int]]], nodes: int) -> None:
        self._context.trusted_term()
        new_id = self._context.new_batch_id
        planned = plan_batches(owed, nodes, new_id, crowds=self._context.crowds)
        done = await insert_owed(self._db, planned.executions, planned.batches, new_id)
        self._context.tracer.written(planned.executions)
        if done.repaired or done.adopted:
            log.info("materialise_repaired", batches=done.repaired, adopted=done.adopted)

    async def _advance(self, moves: Sequence[tuple[ScheduleRow, int | None]]) -> None:
        if await schedules.advance(self._db, moves, self._context.trusted_term()) < len(moves):
            raise TermLost("a schedule was moved by another leader")


def _owed_by(jobs: Sequence[JobSchedule], dues: Sequence[int]) -> list[tuple[JobSchedule, Sequence[int]]]:
    """The jobs that owe any of these due times, each with the ones it owes."""
    return [(job, owed) for job in jobs if (owed := [t for t in dues if job.owes(t)])]
