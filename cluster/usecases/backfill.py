"""Backfills that are asked for: what one would send, and its beginning. The leader sends it (`leader/backfill.py`)."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.core.actor import current_actor
from cluster.core.audit_entry import AuditEntry, entry_id, with_counts
from cluster.core.errors import Conflict, Fault, InvalidInput, NotFound
from cluster.core.explain.backfill_remarks import remarks
from cluster.core.instants import format_instant
from cluster.core.schedule.schedule import schedule_from_key
from cluster.store import audit, requested_backfills
from cluster.store.progress import DONE
from cluster.store.queries import explain_facts, verify_records
from cluster.store.requested_backfills import RequestedBackfill
from cluster.usecases.jobs import require_job

if TYPE_CHECKING:
    from cluster.core.job.definition import StoredJob
    from cluster.store.mongo.client import Database

MOST_OCCURRENCES = 50_000
"""Occurrences of one backfill: they are counted within the deadline of one request."""
PIECE = 200
"""After computing so many, the event loop gets its turn."""
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class BackfillRequest:
    """`from_ms <= due < until_ms`; `again`: also what has run; `now_ms`: when it is asked for."""

    job_id: str
    from_ms: int
    until_ms: int
    again: bool
    per_second: float
    now_ms: int


@dataclass(frozen=True, slots=True)
class BackfillPlan:
    """What a backfill would send: `count` occurrences, of which `already` have run or ended otherwise."""

    job: StoredJob
    count: int
    first_ms: int | None
    last_ms: int | None
    already: int
    known_ms: int
    remarks: tuple[str, ...]


async def plan(db: Database, request: BackfillRequest, retention_days: float) -> BackfillPlan:
    """What the request would send. Raises `NotFound`, and `InvalidInput` for a range that cannot be taken."""
    stored = await explain_facts.job_and_periods(db, request.job_id)
    job, past, _ = stored if stored is not None else (None, [], False)
    job = require_job(job, request.job_id)
    if request.until_ms > request.now_ms:
        text = f"must not be in the future, and it is {format_instant(request.now_ms)}: what is to come, the schedule sends"
        raise InvalidInput([Fault("until", text)])
    if request.from_ms >= request.until_ms:
        raise InvalidInput([Fault("from", "must be before until")])
    known_ms = await known_from_ms(db, job, request.now_ms, retention_days)
    if request.from_ms < known_ms and not request.again:
        raise InvalidInput([Fault("from", _unknown_text(known_ms))])
    dues = await _occurrences(job, request)
    already = 0
    across: list[tuple[int, int, int]] = []
    if dues:
        if not request.again:
            across = await requested_backfills.missed_ranges_across(db, job.id, *_bounds(job, request))
        final = await requested_backfills.final_dues(db, job.id, dues[0], dues[-1] + 1)
        already = sum(_holds(dues, t) for t in final)
    to_send = len(dues) - (0 if request.again else already)
    return BackfillPlan(
        job=job,
        count=len(dues),
        first_ms=dues[0] if dues else None,
        last_ms=dues[-1] if dues else None,
        already=already,
        known_ms=known_ms,
        remarks=tuple(remarks(job, past, dues, to_send, request.per_second, across)),
    )


async def start(db: Database, backfill_id: str, request: BackfillRequest, planned: BackfillPlan) -> RequestedBackfill:
    """Begin what was planned. A request that is repeated finds the first one."""
    start_ms, until_ms = _bounds(planned.job, request)
    backfill = RequestedBackfill(
        id=backfill_id,
        job_id=request.job_id,
        key=planned.job.schedule_key,
        schedule_version=planned.job.schedule_version,
        from_ms=start_ms,
        until_ms=until_ms,
        again=request.again,
        per_second=request.per_second,
        created_ms=request.now_ms,
        known_ms=planned.known_ms,
        count=planned.count,
        cursor_ms=start_ms,
        by=current_actor(),
    )
    if await requested_backfills.insert(db, backfill):
        await audit.record(db, entry_of(backfill))
        return backfill
    return require(await requested_backfills.get(db, backfill_id), request.job_id, backfill_id)


async def stop(db: Database, job_id: str, backfill_id: str, now_ms: int) -> None:
    """Stop the backfill: no further page is begun. Raises `NotFound`, and `Conflict` if it is done already."""
    require(await requested_backfills.get(db, backfill_id), job_id, backfill_id)
    backfill = require(await requested_backfills.stop(db, backfill_id, now_ms), job_id, backfill_id)
    if backfill.state == DONE:
        raise Conflict("the backfill is done: there is nothing left to stop")
    await audit.record(db, entry_of(backfill))


def entry_of(backfill: RequestedBackfill) -> AuditEntry:
    """The entry of the audit log that stands for the whole backfill, with its counts so far."""
    entry = AuditEntry(
        id=entry_id(backfill.created_ms, backfill.id),
        at_ms=backfill.created_ms,
        object=f"backfill:{backfill.id}",
        action="backfill",
        by=backfill.by,
        detail={
            "job": backfill.job_id,
            "from": format_instant(backfill.from_ms),
            "until": format_instant(backfill.until_ms),
            "again": backfill.again,
        },
    )
    counts = {
        "count": backfill.count,
        "sent": backfill.sent,
        "alreadyRun": backfill.already,
        "unknown": backfill.unknown,
    }
    return with_counts(entry, **counts)


def require(backfill: RequestedBackfill | None, job_id: str, backfill_id: str) -> RequestedBackfill:
    """The backfill. Raises `NotFound` unless it is one of this job."""
    if backfill is None or backfill.job_id != job_id:
        raise NotFound(f"there is no backfill '{backfill_id[:64]}' of this job, or it ended more than a week ago")
    return backfill


async def known_from_ms(db: Database, job: StoredJob, now_ms: int, retention_days: float) -> int:
    """The instant from which on history certainly holds what ran.

    The job has its present retention since its last change; before that it may have been any that was ever in use.
    """
    days = job.definition.retention_days or retention_days
    shortest = min(days, await verify_records.shortest_retention_days(db, days))
    return max(now_ms - int(days * DAY_MS), min(job.updated_ms, now_ms - int(shortest * DAY_MS)))


def _unknown_text(known_ms: int) -> str:
    return (
        f"is before {format_instant(known_ms)}, where the results of this job may have expired, so that nobody can know "
        'what ran: take a later time, or say "again": true to send what ran once more'
    )


def _bounds(job: StoredJob, request: BackfillRequest) -> tuple[int, int]:
    """The range within `startAt` and `endAt`."""
    d = job.definition
    start_ms = request.from_ms if d.start_ms is None else max(request.from_ms, d.start_ms)
    until_ms = request.until_ms if d.end_ms is None else min(request.until_ms, d.end_ms + 1)
    return start_ms, max(start_ms, until_ms)


async def _occurrences(job: StoredJob, request: BackfillRequest) -> list[int]:
    """The due times in the range. Raises `InvalidInput` for too many."""
    schedule = schedule_from_key(job.schedule_key)
    start_ms, until_ms = _bounds(job, request)
    dues: list[int] = []
    while True:
        piece = schedule.between(start_ms, until_ms, PIECE)
        dues += piece
        if len(piece) < PIECE:
            return dues
        if len(dues) > MOST_OCCURRENCES:
            text = f"is so early that there are more than {MOST_OCCURRENCES:,} occurrences: take several shorter ranges"
            raise InvalidInput([Fault("from", text)])
        start_ms = piece[-1] + 1
        await asyncio.sleep(0)


def _holds(dues: list[int], due_ms: int) -> bool:
    place = bisect_left(dues, due_ms)
    return place < len(dues) and dues[place] == due_ms
