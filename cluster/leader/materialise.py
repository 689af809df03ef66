"""The main pass: due rows of `schedules` -> executions and batches -> rows moved on. One bounded chunk a step.

Only the leader of a term calls this, from one sequential loop. Each row is stamped with the term before its jobs are
read, so a leader that was replaced meanwhile cannot move it any more; what it inserted late is found in history.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from cluster.core.errors import OwnershipLost, StoreError, TermLost
from cluster.core.execution.planning import MAX_BATCH, Grouping, plan_batches
from cluster.core.schedule.schedule import schedule_from_key
from cluster.leader.quarantine import Quarantine
from cluster.store import backfills, engine_jobs, history, schedules
from cluster.store.backfills import Backfill, backfill_id
from cluster.store.engine_jobs import JobSchedulePage
from cluster.store.enqueue import insert_owed
from cluster.store.history import MissedRange
from cluster.store.schedules import PassCursor, ScheduleRow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cluster.core.execution.model import Execution, JobSchedule, Term
    from cluster.core.timings import Timings
    from cluster.store.engine_jobs import UnreadableJob
    from cluster.store.mongo.client import Database

log = structlog.get_logger()

ROWS = 200
JOBS = 5000
"""Jobs read in one step; with it the executions of one step are bounded by `JOBS` x occurrences in one stride."""
OCCURRENCES = 20_000
CHANGING = 1000
GRACE_MS = 10_000
"""A row further behind than this is caught up as late work instead of being sent as if it were due now."""


@dataclass(frozen=True, slots=True)
class Materialised:
    """What one step did. `more`: there is more to do before the look-ahead is full."""

    executions: int = 0
    rows: int = 0
    more: bool = False


class Materialiser:
    """The main pass of one leader."""

    def __init__(
        self,
        db: Database,
        timings: Timings,
        trusted: Callable[[], Term],
        new_id: Callable[[], str],
        retention_days: float,
    ) -> None:
        self._db = db
        self._timings = timings
        self._trusted = trusted
        self._new_id = new_id
        self.written: Callable[[Sequence[Execution]], None] = lambda _: None
        """Told what has been written down; the leader traces it if anybody wants to see it."""
        self._grouping = Grouping(MAX_BATCH, int(timings.prefetch * 1000))
        self._reach_ms = int((timings.lookahead + timings.stride) * 1000)
        self._retention_days = retention_days
        self.quarantine = Quarantine("schedule")
        """Schedules that cannot be materialised. They do not move, so what they owe is caught up later."""
        self.unsettleable: Callable[[], Sequence[str]] = list
        """Jobs that settling has set aside: nothing waits for them."""

    async def step(self, now_ms: int, nodes: int) -> Materialised:
        """Write down the next chunk of what comes due within the look-ahead. `nodes` is how many share the work."""
        before = now_ms + int(self._timings.lookahead * 1000)
        rows, unreadable = await schedules.due(self._db, before, ROWS, self.quarantine.ids())
        self.quarantine.add(unreadable)
        if not rows:
            return Materialised(more=bool(unreadable))
        return await self._isolated(rows, now_ms, nodes)

    async def _isolated(self, rows: Sequence[ScheduleRow], now_ms: int, nodes: int) -> Materialised:
        """Write these down; if that fails, find the row it fails for by halving and set it aside."""
        try:
            return await self._chunk(rows, now_ms, nodes)
        except (OwnershipLost, StoreError):  # the database is at fault, not one of these
            raise
        except Exception as exc:
            if len(rows) == 1:
                self.quarantine.add_failure(rows[0].key, exc)
                return Materialised(more=True)
        half = len(rows) // 2
        a = await self._isolated(rows[:half], now_ms, nodes)
        b = await self._isolated(rows[half:], now_ms, nodes)
        return Materialised(a.executions + b.executions, a.rows + b.rows, more=True)

    async def _chunk(self, rows: Sequence[ScheduleRow], now_ms: int, nodes: int) -> Materialised:
        stamped = await self._stamp(rows)
        overdue = [r for r in stamped if r.next_ms < now_ms - GRACE_MS]
        if overdue:
            await self._catch_up_later(overdue, now_ms)
            return Materialised(rows=len(overdue), more=True)
        unfinished = next((r for r in stamped if r.unfinished), None)
        if unfinished is not None:
            return await self._page(unfinished, now_ms, nodes)
        return await self._together(stamped, now_ms, nodes)

    async def _stamp(self, rows: Sequence[ScheduleRow]) -> list[ScheduleRow]:
        term = self._trusted()
        if all(r.term == term.number for r in rows):
            return list(rows)
        stamped = await schedules.stamp(self._db, [r.key for r in rows], term)
        if any(r.term > term.number for r in stamped.values()):
            raise TermLost("a schedule carries a newer term")
        return sorted(stamped.values(), key=lambda r: r.next_ms)

    async def _catch_up_later(self, overdue: Sequence[ScheduleRow], now_ms: int) -> None:
        """Put the past into `backfills` and move the rows to now. The range is written before the row moves."""
        ranges: list[Backfill] = []
        moves: list[tuple[ScheduleRow, int | None]] = []
        for row in overdue:
            start = row.next_ms
            ranges.append(Backfill(backfill_id(row.key, None, start), row.key, None, start, now_ms, now_ms, start))
            moves.append((row, schedule_from_key(row.key).next_after(now_ms - 1)))
        # Together: with very many schedules behind, those that are due now must not wait for them one by one.
        await backfills.open_ranges(self._db, *ranges)
        log.warning("schedules_behind", schedules=len(overdue), first=overdue[0].key, from_ms=overdue[0].next_ms)
        await self._advance(moves)

    async def _together(self, rows: Sequence[ScheduleRow], now_ms: int, nodes: int) -> Materialised:
        """Many rows with few jobs each in one go; a row with too many jobs gets a pass of its own."""
        page = JobSchedulePage([])
        taken = list(rows)
        while taken:
            # Sorted pages need one key; a group is read whole or not at all.
            page = await engine_jobs.of_schedules(self._db, [r.key for r in taken], JOBS + 1)
            if page.last is None:
                break
            if len(taken) == 1:
                return await self._page(taken[0], now_ms, nodes)
            taken = taken[: len(taken) // 2]
        by_key: dict[str, list[JobSchedule]] = {}
        for job in page.jobs:
            by_key.setdefault(job.schedule_key, []).append(job)
        lost: dict[str | None, list[UnreadableJob]] = {}
        for unreadable in page.unreadable:
            lost.setdefault(unreadable.key, []).append(unreadable)
        owed: list[tuple[JobSchedule, Sequence[int]]] = []
        moves: list[tuple[ScheduleRow, int | None]] = []
        count = 0
        changing = await self._changing(taken, now_ms)
        for row in taken:
            if row.key in changing:
                continue
            members = by_key.get(row.key, [])
            if not members and row.key not in lost:
                moves.append((row, None))  # settling makes the row anew when a job needs it
                continue
            dues, then = self._occurrences(row, now_ms)
            await self._forgo(lost.get(row.key, ()), dues, now_ms)
            for job in members:
                mine = [t for t in dues if job.owes(t)]
                if mine:
                    owed.append((job, mine))
                    count += len(mine)
            moves.append((row, then))
            if count > OCCURRENCES:
                break
        await self._write(owed, nodes)
        await self._advance(moves)
        return Materialised(count, len(moves), more=len(moves) < len(rows) or len(rows) == ROWS)

    async def _changing(self, rows: Sequence[ScheduleRow], now_ms: int) -> set[str]:
        """Asked after their jobs were read: those rows which settling has to see where they are.

        A job that was changed after this turn's settling is left out of the pass. What it owed before the change and
        this row has not come to is settling's to tell, and it goes by the row. Such a change is at most as old as our
        trust in the term, so a row that is further ahead than that cannot be meant.
        """
        behind = [r.key for r in rows if r.next_ms < now_ms + int(self._timings.leader_lease * 1000)]
        if not behind:
            return set()
        return await engine_jobs.keys_with_pending_change(self._db, behind, CHANGING, self.unsettleable())

    async def _page(self, row: ScheduleRow, now_ms: int, nodes: int) -> Materialised:
        """One page of the jobs of one row; the row remembers how far it came."""
        if row.unfinished:
            until, after = row.unfinished.until_ms, row.unfinished.after
        else:
            until, after = row.next_ms + 1000, None
        schedule = schedule_from_key(row.key)
        dues = schedule.between(row.next_ms, until, OCCURRENCES)
        page = await engine_jobs.of_schedules(self._db, [row.key], JOBS, after=after)
        if await self._changing([row], now_ms):
            return Materialised(more=True)
        owed = [(job, mine) for job in page.jobs if (mine := [t for t in dues if job.owes(t)])]
        await self._forgo(page.unreadable, dues, now_ms)
        await self._write(owed, nodes)
        count = sum(len(mine) for _, mine in owed)
        if page.last is not None:
            if not await schedules.save_cursor(self._db, row, PassCursor(page.last, until), self._trusted()):
                raise TermLost("a schedule was moved by another leader")
            return Materialised(count, 0, more=True)
        await self._advance([(row, schedule.next_after(until - 1))])
        return Materialised(count, 1, more=True)

    async def _forgo(self, lost: Sequence[UnreadableJob], dues: Sequence[int], now_ms: int) -> None:
        """What jobs owe whose documents cannot be read is `missed`, with the reason; the row goes on for the others."""
        if not lost or not dues:
            return
        ranges = [
            MissedRange(u.job_id, "", dues[0], dues[-1], len(dues), f"the job's document could not be read: {u.why}")
            for u in lost
        ]
        self._trusted()
        await history.record_missed(self._db, ranges, now_ms, self._retention_days)

    def _occurrences(self, row: ScheduleRow, now_ms: int) -> tuple[list[int], int | None]:
        """The row's occurrences up to the end of the stride, and the first one behind them."""
        schedule = schedule_from_key(row.key)
        dues = schedule.between(row.next_ms, max(row.next_ms + 1, now_ms + self._reach_ms), 200)
        return dues, schedule.next_after(dues[-1] if dues else row.next_ms)

    async def _write(self, owed: Sequence[tuple[JobSchedule, Sequence[int]]], nodes: int) -> None:
        self._trusted()
        planned = plan_batches(owed, self._grouping, nodes, self._new_id)
        done = await insert_owed(self._db, planned.executions, planned.batches, self._new_id)
        self.written(planned.executions)
        if done.repaired or done.adopted:
            log.info("materialise_repaired", batches=done.repaired, reowned=done.adopted)

    async def _advance(self, moves: Sequence[tuple[ScheduleRow, int | None]]) -> None:
        if await schedules.advance(self._db, moves, self._trusted()) < len(moves):
            raise TermLost("a schedule was moved by another leader")
