"""Replaying many failed or dead executions: one small page a step, as late work, at the requested rate.

A replay never starves executions that are due now: late batches go out behind them, a bounded number of late batches is
alive, and a page waits for its time. Only the leader does this. A page is written first, then its executions are reopened
in history, then they are owed. After a crash in between, the same page is done again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from cluster.core.execution.batching import MAX_BODY_BYTES, in_portions
from cluster.core.execution.model import Execution
from cluster.core.execution.planning import plan_requested
from cluster.core.ids import is_message
from cluster.core.lifecycle import JobState, State
from cluster.core.limits.permits import limit_key_of
from cluster.core.targets import is_host
from cluster.store import batches, follow_ups, followed, jobs, replayable, replays
from cluster.store.enqueue import insert_owed
from cluster.store.queries import message_states

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.core.job.definition import StoredJob
    from cluster.leader.context import LeaderContext
    from cluster.store.replays import Replay, ReplayFilter

log = structlog.get_logger()

PAGE = 1000
"""Executions looked at for one page."""
REPAIR_EVERY = 60.0
UNFINISHED_MS = 60_000
"""A request for a replay that is older has made its writes or has died between them."""
LIVE_BATCHES = 32
"""While so many late batches are alive, no page is added."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """The result of one step. `idle`: no replay was asked for."""

    executions: int = 0
    idle: bool = False


class Replayer:
    """Replays by one leader."""

    def __init__(self, context: LeaderContext) -> None:
        self._context = context
        self._db = context.db
        self._repaired_at = 0.0

    async def step(self, now_ms: int) -> Replayed:
        """The next page of the replay whose turn it is, if its time has come and there is room."""
        now = self._context.clock.monotonic()
        if now - self._repaired_at > REPAIR_EVERY:
            self._repaired_at = now
            await self.repair(now_ms)
        replay = await replays.next_due(self._db)
        if replay is None:
            return Replayed(idle=True)
        if not replay.page:
            if now_ms < replay.next_ms or await batches.count_late(self._db, LIVE_BATCHES) >= LIVE_BATCHES:
                return Replayed()
            turned = await self._next_page(replay, now_ms)
            if turned is None or not turned.page:
                return Replayed()
            replay = turned
        self._context.trusted_term()
        reopened = await self._reopened(replay, now_ms)
        await self._owe([(*r, replay.created_ms) for r in reopened], now_ms)
        await replays.save(self._db, replace(replay, page=()))
        return Replayed(len(reopened))

    async def _reopened(self, replay: Replay, now_ms: int) -> list[tuple[str, str, int]]:
        """Reopen the page. Returns `(id, job id, due in ms)` of what is open now.

        What follows the results is owed before: this deletes executions whose nodes died before they wrote it. A result that
        comes meanwhile, for an execution that has gone, marks its record, and the record is reopened in the next round.
        """
        reopened: list[tuple[str, str, int]] = []
        marked = 1
        while marked:
            await follow_ups.owe_before_replay(self._db, replay.page)
            self._context.trusted_term()
            reopened = await replayable.reopen_page(self._db, replay, now_ms, self._context.retention_days)
            marked = len(await followed.left_to_follow(self._db, replay.page, ()))
        return reopened

    async def repair(self, now_ms: int) -> int:
        """Owe executions that were reopened a while ago and are owed by nobody. Returns how many there were.

        A request for a replay reopens the record first. If its node dies before the execution is owed, the record alone
        is left. It is safe to owe an execution that has just ended: the node that claims it finds the record.
        """
        unowed = await replayable.unfinished(self._db, now_ms - UNFINISHED_MS, PAGE)
        if not unowed:
            return 0
        log.warning("replays_repaired", executions=len(unowed))
        self._context.trusted_term()
        jobless = await self._owe(unowed, now_ms)
        if jobless:
            await replayable.end_without_job(self._db, jobless)
        return len(unowed)

    async def _next_page(self, replay: Replay, now_ms: int) -> Replay | None:
        """Write the next page, or that there is none. None if another leader was faster."""
        candidates = await replayable.next_page(self._db, replay, PAGE)
        self._context.trusted_term()
        if not candidates:
            log.info("replay_done", replay=replay.id, sent=replay.sent)
            return await replays.save(self._db, replace(replay, done=True))
        jobs_by_id = await jobs.get_many(self._db, {job for _, _, job in candidates}, with_body=False)
        requests = await message_states.labels_of(self._db, [name for _, name, job in candidates if is_message(job)])
        page_size = max(1, int(replay.per_second))
        page: list[str] = []
        after = replay.after
        for ended_ms, execution_id, job_id in candidates:
            if len(page) == page_size:
                break
            after = (ended_ms, execution_id)
            request = requests.get(execution_id)
            wanted = _matches(replay, jobs_by_id.get(job_id)) if request is None else _fits(replay.criteria, *request)
            if wanted:
                page.append(execution_id)
        pause_ms = int(len(page) * 1000 / replay.per_second)
        sent = replay.sent + len(page)
        return await replays.save(
            self._db, replace(replay, page=tuple(page), after=after, sent=sent, next_ms=now_ms + pause_ms)
        )

    async def _owe(self, reopened: Sequence[tuple[str, str, int, int]], now_ms: int) -> list[str]:
        """Insert the executions, then their batches. An execution that is owed already stays as it is. In portions, so that
        only so many large bodies of messages are in memory.

        Returns those whose job does not exist, or was deleted and created again since they were asked for. Those of a job
        whose tombstone is left are cancelled.
        """
        sizes = await message_states.body_sizes(self._db, [name for name, job, *_ in reopened if is_message(job)])
        jobless: list[str] = []
        for portion in in_portions(reopened, lambda r: sizes.get(r[0], 0), MAX_BODY_BYTES):
            jobless += await self._owe_portion(portion, now_ms)
        return jobless

    async def _owe_portion(self, reopened: Sequence[tuple[str, str, int, int]], now_ms: int) -> list[str]:
        jobs_by_id = await jobs.get_many(self._db, {job for _, job, _, _ in reopened}, with_body=False)
        requests = await message_states.requests_of(self._db, [name for name, job, *_ in reopened if is_message(job)])
        jobless: list[str] = []
        owed: list[Execution] = []
        for execution_id, job_id, due_ms, asked_ms in reopened:
            if execution_id in requests:
                message = message_states.replayed(execution_id, job_id, due_ms, requests[execution_id])
                owed.append(replace(message, send_ms=now_ms, state=State.RETRYING, replayed_ms=now_ms))
                continue
            job = jobs_by_id.get(job_id)
            if job is None or asked_ms < job.created_ms:
                jobless.append(execution_id)
                continue
            definition = job.definition
            execution = Execution(
                id=execution_id,
                job_id=job_id,
                due_ms=due_ms,
                send_ms=now_ms,
                schedule_version=job.schedule_version,
                batch="",
                lane=definition.lane,
                state=State.RETRYING,
                trigger=True,
                # What was asked for before a pause waits for the resume, however long ago that was.
                replayed_ms=asked_ms if job.state is JobState.PAUSED else now_ms,
                host=definition.host,
                limit_key=limit_key_of(job_id, definition.queue, definition.limits),
            )
            owed.append(execution)
        new_id = self._context.new_batch_id
        plan = plan_requested(owed, new_id)
        self._context.trusted_term()
        await insert_owed(self._db, plan.executions, plan.batches, new_id)
        return jobless


def _matches(replay: Replay, job: StoredJob | None) -> bool:
    """The part of the filter that history cannot answer: whether the job still exists (not another one of its id), its
    tags and its host.
    """
    if job is None or job.state is JobState.DELETED or replay.created_ms < job.created_ms:
        return False
    return _fits(replay.criteria, job.definition.tags, job.definition.host)


def _fits(criteria: ReplayFilter, tags: Sequence[str], host: str) -> bool:
    has_tag = criteria.tag is None or criteria.tag in tags
    return has_tag and (criteria.host is None or is_host(host, criteria.host))
