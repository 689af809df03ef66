"""Occurrences that jobs owed before a change and that no leader wrote down: they are recorded as missed, with the reason.

There are some only if no node led for longer than the look-ahead, while a range is caught up, or if a job was changed
twice before the leader looked at it. An execution that was written is sent or cancelled by a node, which leaves a record
too. One of an earlier schedule counts for that schedule alone: it is cancelled if it came due after that schedule's end.

Settling records them as far back as the row, or a range to catch up, has come. The main pass and catch-up leave out jobs
with an unsettled change, and settling would not look behind the point that they have reached. So before a row or a range
moves on, they record what these jobs owed of the occurrences that it passes. Then nobody has to wait for settling,
however often some jobs are changed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from cluster.core.ids import execution_id
from cluster.core.schedule.schedule import schedule_from_key
from cluster.leader.missed import missed_range
from cluster.store import engine_jobs, executions, history, missed_ranges

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cluster.core.execution.model import JobSchedule
    from cluster.leader.context import LeaderContext

JOBS = 1000
"""Jobs read at once."""
OCCURRENCES = 10_000
"""Occurrences looked up at once."""
PRUNED_MS = 60_000
"""History may have been pruned up to this much before the retention says so: clocks differ."""
_ENDED_BY = {
    "change": "the schedule was changed before the occurrence was scheduled",
    "pause": "the job was paused before the occurrence was scheduled",
    "delete": "the job was deleted before the occurrence was scheduled",
}
_CHANGED = "the job was changed before the occurrence was scheduled"


class Unwritten(NamedTuple):
    """Due times from `start_ms` to `end_ms`, both included, of a schedule that a job had: some may never have been written."""

    job: JobSchedule
    past: JobSchedule
    start_ms: int
    end_ms: int


def beginning_at(job: JobSchedule, past: JobSchedule, written_to_ms: int, end_ms: int) -> Unwritten:
    """Those of a past schedule. `written_to_ms`: how far its row and its ranges have come."""
    # A past schedule that ended before it was settled was in no pass, wherever its row had come to.
    start = past.active_from_ms if past.change_id is not None else max(written_to_ms, past.active_from_ms)
    return Unwritten(job, past, start, end_ms)


async def record_unwritten(context: LeaderContext, candidates: Iterable[Unwritten], now_ms: int) -> int:
    """Record as missed what is neither owed nor in history of these. Returns how many occurrences."""
    count = 0
    dues: list[tuple[Unwritten, list[int]]] = []
    size = 0
    for c in candidates:
        start = max(c.start_ms, _known_since_ms(context, c, now_ms))
        while start <= c.end_ms:  # what is due at the very instant of a change belongs to the earlier schedule
            found = schedule_from_key(c.past.schedule_key).between(start, c.end_ms + 1, OCCURRENCES)
            dues.append((c, [t for t in found if c.past.owes(t)]))
            size += len(found)
            if size >= OCCURRENCES:
                count += await _record(context, dues, now_ms)
                dues, size = [], 0
            start = found[-1] + 1 if len(found) == OCCURRENCES else c.end_ms + 1
    return count + await _record(context, dues, now_ms)


async def record_left_out(context: LeaderContext, spans: Mapping[str, tuple[int, int]], now_ms: int) -> int:
    """Record what jobs with an unsettled change owed before it, of what rows or ranges are about to pass.

    `spans`: by key of a schedule, the due times `from <= t < to` that are passed. Call it after the settled jobs were read
    and what they owe was written: a job that was changed since has its executions. Returns how many occurrences.
    """
    if not spans:
        return 0
    since_ms = min(start for start, _ in spans.values())
    unsettleable = context.job_quarantine.ids()
    ids = await engine_jobs.with_pending_change(context.db, spans, since_ms, unsettleable)
    count = 0
    for i in range(0, len(ids), JOBS):
        jobs = await engine_jobs.pending(context.db, ids[i : i + JOBS])
        count += await record_unwritten(context, _passed(jobs, spans), now_ms)
    return count


def _passed(jobs: Sequence[JobSchedule], spans: Mapping[str, tuple[int, int]]) -> Iterable[Unwritten]:
    for job in jobs:
        for past, to_ms in job.unsettled_past:
            span = spans.get(past.schedule_key)
            if span is not None and to_ms >= span[0]:
                yield beginning_at(job, past, span[0], min(to_ms, span[1] - 1))


def _known_since_ms(context: LeaderContext, c: Unwritten, now_ms: int) -> int:
    """Due times before this instant may have been delivered, and their records expired since."""
    days = [context.retention_days, c.job.retention_days, c.past.retention_days]
    return now_ms - int(min(d for d in days if d is not None) * history.DAY_MS) + PRUNED_MS


async def _record(context: LeaderContext, dues: Sequence[tuple[Unwritten, list[int]]], now_ms: int) -> int:
    """Record those of these due times of which there is neither an owed execution nor a record."""
    versions = {execution_id(c.past.id, t): c.past.schedule_version for c, times in dues for t in times}
    if not versions:
        return 0
    # A result is in history before it leaves `executions`: so what is in neither was in neither all the time.
    # An execution that an earlier schedule owed too, and that was not adopted before this one ended, is no answer: nodes
    # cancel it, or have done so, because its own schedule ended before it was due.
    owed = await executions.owed(context.db, versions)
    written = {i for i, e in owed.items() if e.trigger or e.schedule_version == versions[i]}
    written |= await history.recorded_ids(context.db, versions)
    ranges = []
    for c, times in dues:
        missed = [t for t in times if execution_id(c.past.id, t) not in written]
        if missed:
            found = missed_range(c.past, missed, _ENDED_BY.get(c.past.ended_by, _CHANGED))
            ranges.append(replace(found, retention_days=c.job.retention_days))
    if ranges:
        context.trusted_term()
        await missed_ranges.record(context.db, ranges, now_ms, context.retention_days)
    return sum(r.count for r in ranges)
