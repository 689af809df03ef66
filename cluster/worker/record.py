"""Recording: final executions go to history, those to be retried move to another batch. One flush at a time.

The order of the writes makes a crash harmless. A success: history, then what follows it, then the execution, then the batch. Anything else that ends
is fenced first, because a node that lost its lease may still report a success, but must not end an execution that another node owes.
A retry: the executions name the new batch, then it is inserted, then the old one may go.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from cluster.core.execution.batching import MAX_BODY_BYTES, BatchOptions, in_portions, make_batch
from cluster.core.execution.planning import MAX_BATCH, split_by_host
from cluster.core.lifecycle import State
from cluster.core.limits.permits import sharing_key
from cluster.store import batches, engine_jobs, executions, follow_ups, followed, history
from cluster.store.mongo.codec import LARGE_BODY
from cluster.store.mongo.operation import retry_while_unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.core.execution.model import Batch, Ending, Execution, Rescheduled
    from cluster.store.mongo.client import Database

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class FlushResult:
    """Of a flush: second deliveries that it met, and results that came after the lease was lost."""

    duplicates: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class MoveOptions:
    """How executions move: as late work, how often they count as claimed, and from when they may be claimed.

    `claimable_ms` None: shortly before they are to be sent, and not before `released_ms`. `by_limit`: in batches of their own
    for each limit.
    """

    late: bool = False
    claims: int = 0
    one_per_batch: bool = False
    claimable_ms: int | None = None
    released_ms: int | None = None
    by_limit: bool = False


AS_RETRY = MoveOptions()


def _body_bytes(ending: Ending) -> int:
    """The large body that has to be read to record an ending."""
    message = ending.execution.message or {}
    return 0 if ending.state is State.SUCCEEDED or LARGE_BODY in message else int(message.get("body_size", 0))


def _host(rescheduled: Rescheduled) -> str:
    return rescheduled.execution.host


class Recorder:
    """Writes results for one node. `seconds` bounds how long one write is repeated while MongoDB is away.

    It is long, because a move may only be repeated under the batch name it began with.
    """

    def __init__(self, db: Database, retention_days: float, seconds: float = 3600.0) -> None:
        self._db = db
        self.retention_days = retention_days
        self._seconds = seconds

    async def record_final(self, ended: Sequence[Ending], exclusive: Sequence[Execution] = ()) -> FlushResult:
        """Record final executions. `exclusive` are those that ran under `overlap: skip`. Safe to repeat.

        Messages that did not succeed take their large bodies along into history, so they are recorded in portions.
        """
        flushed = FlushResult()
        for portion in in_portions(ended, _body_bytes, MAX_BODY_BYTES):
            ids = {e.execution.id for e in portion}
            one = await self._record_portion(portion, [e for e in exclusive if e.id in ids])
            flushed = FlushResult(flushed.duplicates + one.duplicates, flushed.lost + one.lost)
        return flushed

    async def _record_portion(self, ended: Sequence[Ending], exclusive: Sequence[Execution]) -> FlushResult:
        succeeded = [e for e in ended if e.state is State.SUCCEEDED]
        others = [e for e in ended if e.state is not State.SUCCEEDED]
        fenced = set[str]()
        if others:
            nonce = uuid.uuid4().hex
            fenced = await retry_while_unavailable(
                lambda: executions.fence_endings(self._db, [e.execution for e in others], nonce),
                seconds=self._seconds,
                during="fence_endings",
            )
        final = succeeded + await self._with_bodies([e for e in others if e.execution.id in fenced])
        recorded = await retry_while_unavailable(
            lambda: history.record(self._db, final, self.retention_days), seconds=self._seconds, during="record"
        )
        may_be_followed = [e.execution for e in final if e.followed]
        if may_be_followed:  # before the executions go: whoever claims one that this node leaves does it again
            await retry_while_unavailable(
                lambda: follow_ups.owe_after(self._db, may_be_followed), seconds=self._seconds, during="follow_ups"
            )
            if recorded.improved:
                states = {e.execution.id: e.state.value for e in final if e.execution.id in recorded.improved}
                await retry_while_unavailable(
                    lambda: followed.mark_followed(self._db, states),
                    seconds=self._seconds,
                    during="mark_followed",
                )
        by_batch: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
        for e in final:
            by_batch[e.execution.batch, e.execution.token].append(e.execution.id)
        removed = await retry_while_unavailable(
            lambda: executions.delete_final(self._db, by_batch), seconds=self._seconds, during="remove"
        )
        if exclusive:
            await self._end_exclusive(exclusive, certain=removed == len(ended))
        lost = [e for e in others if e.execution.id not in fenced]
        await self._keep_attempts([replace(e.execution, attempts=e.attempts[-1:]) for e in lost if e.attempts])
        return FlushResult(recorded.duplicates, len(lost))

    async def _with_bodies(self, unsuccessful: list[Ending]) -> list[Ending]:
        """Messages that a replay may send again take their large bodies along into history."""
        if not any(e.execution.message for e in unsuccessful):
            return unsuccessful
        full = await retry_while_unavailable(
            lambda: executions.with_large_bodies(self._db, [e.execution for e in unsuccessful]),
            seconds=self._seconds,
            during="read_bodies",
        )
        return [replace(e, execution=full.get(e.execution.id, e.execution)) for e in unsuccessful]

    async def _end_exclusive(self, ran: Sequence[Execution], *, certain: bool) -> None:
        """Let the next occurrences of these jobs run. `certain`: none of these executions is owed any more.

        For an execution that is still owed this node has lost the lease: another node may be sending it by now, and lets
        the next occurrence run when it ends it.
        """
        ids = [e.id for e in ran]
        still_owed = (
            {}
            if certain
            else await retry_while_unavailable(
                lambda: executions.owed(self._db, ids), seconds=self._seconds, during="still_owed"
            )
        )
        ended = [e for e in ran if e.id not in still_owed]
        if ended:
            ids, jobs = [e.id for e in ended], [e.job_id for e in ended]
            await retry_while_unavailable(
                lambda: engine_jobs.end_exclusive(self._db, ids, jobs), seconds=self._seconds, during="end_exclusive"
            )

    async def record_unreadable(self, batch: Batch, unreadable: dict[str, str], now_ms: int) -> None:
        """Executions of a held batch whose documents cannot be read: `dead` with the reason, and owed no more."""
        log.error("executions_unreadable", batch=batch.id, executions=sorted(unreadable))
        await history.insert_unreadable(self._db, unreadable, now_ms, self.retention_days)
        await follow_ups.owe_after_unreadable(self._db, unreadable)
        await executions.delete_final(self._db, {(batch.id, batch.token): sorted(unreadable)})

    async def reschedule(self, moved: Sequence[Rescheduled], options: MoveOptions = AS_RETRY) -> int:
        """Put executions under new batches, by attempt, send time, limit and host.

        Returns how many this node did not hold any more.
        """
        newest: dict[str, Rescheduled] = {}
        for m in moved:
            if m.execution.id not in newest or m.execution.token > newest[m.execution.id].execution.token:
                newest[m.execution.id] = m
        # One that this node has claimed twice: its tokens only grow, so the lease of the earlier claim is lost.
        stale = [m for m in moved if newest[m.execution.id] is not m]
        groups: defaultdict[tuple[object, ...], list[Rescheduled]] = defaultdict(list)
        for m in newest.values():
            # Released executions keep their send times, of which a late batch has many.
            at = m.send_ms if options.claimable_ms is None else None
            limit_key = m.execution.limit_key if options.by_limit else sharing_key(m.execution.limit_key)
            key: tuple[object, ...] = (len(m.attempts), at, limit_key)
            groups[(*key, m.execution.id) if options.one_per_batch else key].append(m)
        shares = [share for group in groups.values() for share in split_by_host(group, _host, MAX_BATCH)]
        lost = 0
        # Small ones together: a batch of 512 must be split well before its lease ends.
        for together in in_portions(shares, len, MAX_BATCH) if shares else ():
            lost += await self._move(together, options)
        await self._keep_last_attempts(stale)
        return lost + len(stale)

    async def _move(self, groups: Sequence[Sequence[Rescheduled]], options: MoveOptions) -> int:
        """Each group to a batch of its own, all of them in two writes."""
        moving = [m for group in groups for m in group]
        names = [uuid.uuid4().hex for _ in groups]
        to = {m.execution.id: name for name, group in zip(names, groups, strict=True) for m in group}
        moved = await retry_while_unavailable(
            lambda: executions.move(self._db, moving, to), seconds=self._seconds, during="move_executions"
        )
        made = [
            _batch(name, group, moved, options)
            for name, group in zip(names, groups, strict=True)
            if any(m.execution.id in moved for m in group)
        ]
        if made:
            await retry_while_unavailable(
                lambda: batches.insert(self._db, made), seconds=self._seconds, during="insert_batch"
            )
        lost = [m for m in moving if m.execution.id not in moved]
        await self._keep_last_attempts(lost)
        return len(lost)

    async def _keep_last_attempts(self, lost: Sequence[Rescheduled]) -> None:
        await self._keep_attempts([replace(m.execution, attempts=m.attempts[-1:]) for m in lost if m.attempts])

    async def _keep_attempts(self, late_results: Sequence[Execution]) -> None:
        """Keep an attempt that ended after its lease where the execution is now: the request was made all the same."""
        for execution in late_results:
            kept = await executions.add_attempts(self._db, execution)
            log.warning("lease_lost", execution=execution.id, batch=execution.batch, token=execution.token, kept=kept)

    async def delete_finished(self, done: Sequence[Batch]) -> None:
        """Delete batches of which nothing is open; one that grew meanwhile is released for the executions that were added."""
        left = await retry_while_unavailable(
            lambda: batches.delete_finished(self._db, done), seconds=self._seconds, during="finish_batches"
        )
        for batch in done:
            if batch.id in left and await batches.release(self._db, batch, None):
                log.info("batch_grew", batch=batch.id)


def _batch(name: str, group: Sequence[Rescheduled], moved: set[str], options: MoveOptions) -> Batch:
    """The new batch of those of a group that were moved."""
    members = [
        replace(m.execution, batch=name, send_ms=m.send_ms, attempts=m.attempts)
        for m in sorted(group, key=lambda m: m.execution.id)
        if m.execution.id in moved
    ]
    return make_batch(
        members,
        BatchOptions(
            deferred_until_ms=options.claimable_ms,
            not_before_ms=options.released_ms,
            late=options.late,
            by_limit=options.by_limit,
            token=max(m.execution.token for m in group),
            claims=options.claims,
        ),
    )
