"""Requested backfills: a job's occurrences of a time that has passed, the oldest first, as late work, at a rate.

Only the leader does this. A page is written first; then `missed` records of its executions are reopened; then they are
owed; then the page is noted as owed. After a crash in between, the same page is done again under the same ids: what is
owed already stays as it is, and what has ended since is found in history at the claim and not sent.

What is in history as final is left out, unless the request says `again`: then each has an id of the request's own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from cluster.core.errors import UnreadableDocument
from cluster.core.execution.model import Execution
from cluster.core.execution.planning import plan_requested
from cluster.core.ids import execution_id
from cluster.core.lifecycle import JobState
from cluster.core.limits.permits import limit_key_of
from cluster.core.schedule.schedule import schedule_from_key
from cluster.store import audit, batches, executions, jobs, requested_backfills
from cluster.store.enqueue import insert_owed
from cluster.store.progress import DONE, STOPPED
from cluster.usecases.backfill import entry_of

if TYPE_CHECKING:
    from cluster.core.job.definition import StoredJob
    from cluster.leader.context import LeaderContext
    from cluster.store.requested_backfills import RequestedBackfill

log = structlog.get_logger()

LOOK = 500
"""Occurrences looked at for one page."""
LIVE_BATCHES = 32
"""While so many late batches are alive, no page is added."""
PAUSED_MS = 5000
"""So long a backfill waits until it looks again whether its job was resumed."""


@dataclass(frozen=True, slots=True)
class Backfilled:
    """The result of one step. `idle`: no backfill was asked for."""

    executions: int = 0
    idle: bool = False


class Backfiller:
    """Requested backfills by one leader."""

    def __init__(self, context: LeaderContext) -> None:
        self._context = context
        self._db = context.db

    async def step(self, now_ms: int) -> Backfilled:
        """The next page of the backfill whose turn it is, if its time has come and there is room."""
        backfill = await requested_backfills.next_due(self._db)
        if backfill is None:
            return Backfilled(idle=True)
        if not backfill.page and (
            now_ms < backfill.next_ms or await batches.count_late(self._db, LIVE_BATCHES) >= LIVE_BATCHES
        ):
            return Backfilled()
        try:
            job = await jobs.get(self._db, backfill.job_id)
        except UnreadableDocument as exc:
            await self._end(backfill, STOPPED, now_ms, str(exc))
            return Backfilled()
        if job is None or job.state is JobState.DELETED or job.created_ms > backfill.created_ms:
            await self._end(backfill, STOPPED, now_ms, "the job was deleted")
            return Backfilled()
        if not backfill.page:
            turned = await self._next_page(backfill, job, now_ms)
            if turned is None or not turned.page:
                return Backfilled()
            backfill = turned
        await self._owe(backfill, job)
        await requested_backfills.save_page(self._db, backfill)
        return Backfilled(len(backfill.page))

    async def _end(self, backfill: RequestedBackfill, state: str, now_ms: int, reason: str | None = None) -> None:
        self._context.trusted_term()
        ended = replace(backfill, state=state, reason=reason, page=(), page_ms=0, ended_ms=now_ms)
        if await requested_backfills.save(self._db, ended) is not None:
            await audit.record(self._db, entry_of(ended))
            log.info("backfill_done", backfill=ended.id, job=ended.job_id, state=state, sent=ended.sent)

    async def _next_page(self, backfill: RequestedBackfill, job: StoredJob, now_ms: int) -> RequestedBackfill | None:
        """Write the next page, or that there is none. None if another leader was faster, or there is nothing to owe yet."""
        if job.state is JobState.PAUSED and job.updated_ms > backfill.created_ms:
            # What was asked for before a pause waits for the resume. It must not stand in the way of other late work.
            self._context.trusted_term()
            return await requested_backfills.save(self._db, replace(backfill, next_ms=now_ms + PAUSED_MS))
        dues = schedule_from_key(backfill.key).between(backfill.cursor_ms, backfill.until_ms, LOOK)
        known_ms = known_until_ms(backfill, now_ms)
        await self._supersede_missed(backfill, known_ms)
        if not dues:
            await self._end(backfill, DONE, now_ms)
            return None
        unknown = 0 if backfill.again else sum(t < known_ms for t in dues)
        ids = {t: execution_id(job.id, t) for t in dues[unknown:]}
        ran: set[str] = set()
        if not backfill.again:
            # Owed first: what ends between the two reads is in history before it leaves `executions`.
            ran = await executions.existing_ids(self._db, list(ids.values()))
            ran |= await requested_backfills.not_missed(self._db, list(ids.values()))
        page_size = max(1, min(LOOK, int(backfill.per_second)))
        page: list[int] = []
        already, cursor_ms = 0, dues[unknown - 1] + 1 if unknown else backfill.cursor_ms
        for due, name in ids.items():
            if len(page) == page_size:
                break
            cursor_ms = due + 1
            if name in ran:
                already += 1
            else:
                page.append(due)
        self._context.trusted_term()
        return await requested_backfills.save(
            self._db,
            replace(
                backfill,
                page=tuple(page),
                page_ms=now_ms if page else 0,
                cursor_ms=cursor_ms,
                already=backfill.already + already,
                unknown=backfill.unknown + unknown,
                next_ms=now_ms + int(len(page) * 1000 / backfill.per_second),
            ),
        )

    async def _supersede_missed(self, backfill: RequestedBackfill, known_ms: int) -> None:
        """What the cursor has passed has records of its own by now: the missed ranges over it say nothing more."""
        if not backfill.again:
            from_ms = max(backfill.from_ms, known_ms)
            await requested_backfills.delete_missed_ranges(self._db, backfill, from_ms, backfill.cursor_ms)

    async def _owe(self, backfill: RequestedBackfill, job: StoredJob) -> None:
        """Insert the executions of the page, then their batches."""
        definition = job.definition
        again = backfill.id if backfill.again else None
        owed = [
            Execution(
                id=execution_id(job.id, due, again),
                job_id=job.id,
                due_ms=due,
                send_ms=backfill.page_ms + place,  # the oldest first
                schedule_version=job.schedule_version,
                batch="",
                lane=definition.lane,
                trigger=True,
                replayed_ms=backfill.created_ms,
                host=definition.host,
                limit_key=limit_key_of(job.id, definition.queue, definition.limits),
                request_id=backfill.id,
                waits=True,
            )
            for place, due in enumerate(backfill.page)
        ]
        plan = plan_requested(owed, self._context.new_batch_id)
        days = definition.retention_days or self._context.retention_days
        self._context.trusted_term()
        if not backfill.again:
            await requested_backfills.reopen_missed(
                self._db, [e.id for e in owed], backfill.created_ms, backfill.page_ms, days
            )
        await insert_owed(self._db, plan.executions, plan.batches, self._context.new_batch_id)


def known_until_ms(backfill: RequestedBackfill, now_ms: int) -> int:
    """The instant before which a record may have expired by now: it moves on as time does."""
    return backfill.known_ms + max(0, now_ms - backfill.created_ms)
