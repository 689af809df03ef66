"""Sending many failed or dead executions again: one small page a step, as late work, at the rate that was asked for.

It never starves what is due now: late batches go out behind it, a bounded number of them is alive, and a page comes
when its time has come. Only the leader does this. A page is written down first, then reopened in history, then owed; a
crash in between is repaired by doing the same page again.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from cluster.core.execution.batching import BatchOptions, make_batch
from cluster.core.execution.model import Execution
from cluster.core.execution.planning import MAX_BATCH, group_by_host
from cluster.core.lifecycle import JobState, State
from cluster.core.limits.permits import batch_limit_key, limit_key_of
from cluster.store import batches, jobs, replays
from cluster.store.enqueue import insert_owed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cluster.core.execution.model import Batch, Term
    from cluster.core.job.definition import StoredJob
    from cluster.store.mongo.client import Database
    from cluster.store.replays import Replay

log = structlog.get_logger()

PAGE = 1000
ALIVE = 32
"""While so many late batches are alive, no page is added."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What one step did."""

    executions: int = 0


class Replayer:
    """Sending again, by one leader."""

    def __init__(
        self, db: Database, trusted: Callable[[], Term], new_id: Callable[[], str], retention_days: float
    ) -> None:
        self._db = db
        self._trusted = trusted
        self._new_id = new_id
        self._retention_days = retention_days

    async def step(self, now_ms: int) -> Replayed:
        """The next page of the request whose turn it is, if its time has come and there is room."""
        replay = await replays.next_due(self._db)
        if replay is None:
            return Replayed()
        if not replay.page:
            if now_ms < replay.next_ms or await batches.count_late(self._db, ALIVE) >= ALIVE:
                return Replayed()
            turned = await self._turn(replay, now_ms)
            if turned is None or not turned.page:
                return Replayed()
            replay = turned
        self._trusted()
        again = await replays.reopen_page(self._db, replay, now_ms, self._retention_days)
        await self._owe(again, now_ms)
        await replays.save(self._db, replace(replay, page=()))
        return Replayed(len(again))

    async def _turn(self, replay: Replay, now_ms: int) -> Replay | None:
        """Write down the next page, or that there is none. None if another leader was faster."""
        found = await replays.next_page(self._db, replay, PAGE)
        self._trusted()
        if not found:
            log.info("replay_done", replay=replay.id, sent=replay.sent)
            return await replays.save(self._db, replace(replay, done=True))
        known = await jobs.get_many(self._db, {job for _, _, job in found})
        most = max(1, int(replay.per_second))
        page: list[str] = []
        after = replay.after
        for end, name, job_id in found:
            if len(page) == most:
                break
            after = (end, name)
            if self._fits(replay, known.get(job_id)):
                page.append(name)
        pause = int(len(page) * 1000 / replay.per_second)
        sent = replay.sent + len(page)
        return await replays.save(
            self._db, replace(replay, page=tuple(page), after=after, sent=sent, next_ms=now_ms + pause)
        )

    @staticmethod
    def _fits(replay: Replay, job: StoredJob | None) -> bool:
        """What history does not know about: whether the job is still there, and its tags."""
        tag = replay.criteria.tag
        there = job is not None and job.state is not JobState.DELETED
        return there and (tag is None or (job is not None and tag in job.definition.tags))

    async def _owe(self, again: Sequence[tuple[str, str, int]], now_ms: int) -> None:
        """Executions first, then their batches; what is owed already is left as it is."""
        known = await jobs.get_many(self._db, {job for _, job, _ in again})
        groups: defaultdict[tuple[int, str | None], list[Execution]] = defaultdict(list)
        for name, job_id, due in again:
            job = known.get(job_id)
            if job is None:
                continue
            d = job.definition
            execution = Execution(
                name,
                job_id,
                due,
                now_ms,
                job.schedule_version,
                "",
                d.lane,
                State.RETRYING,
                trigger=True,
                replayed_ms=now_ms,
                host=d.host,
                limit_key=limit_key_of(job_id, d.queue, d.limits),
            )
            groups[d.lane, batch_limit_key(execution.limit_key)].append(execution)
        owed: list[Execution] = []
        its_batches: list[Batch] = []
        for group in groups.values():
            for _, share in group_by_host(group, lambda e: e.host):
                for start in range(0, len(share), MAX_BATCH):
                    batch = self._new_id()
                    members = [replace(e, batch=batch) for e in share[start : start + MAX_BATCH]]
                    owed += members
                    its_batches.append(make_batch(members, BatchOptions(prefetch_ms=0, late=True)))
        self._trusted()
        await insert_owed(self._db, owed, its_batches, self._new_id)
