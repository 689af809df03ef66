"""Writing what follows executions that have ended: callbacks, and runs of chained jobs. `cluster/README.md` ("What follows an
execution") has the protocol.

It is called after the record is in history, and before the execution leaves `executions`. Every follow-up has an id that is
made of the execution that it follows, so whoever comes first writes it, and whoever comes again meets it.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from cluster.core.execution.follow_up import kind_of
from cluster.core.execution.planning import plan_messages
from cluster.core.ids import is_message, parse_execution_id
from cluster.store import batches, executions, followed
from cluster.store.enqueue import repair_batches
from cluster.store.followed import Ended, FollowedJob, callback_of, followed_message

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cluster.core.execution.follow_up import EndedExecution
    from cluster.core.execution.model import Execution
    from cluster.store.mongo.client import Database

log = structlog.get_logger()

REPAIRED_AT_ONCE = 500
NODES = 2
"""Batches of one call are made so small that so many nodes get a share of them."""


async def owe_after(db: Database, ended: Iterable[Execution]) -> int:
    """Owe what follows those of these executions that have ended, by what history says. Returns how many were written.

    Safe to repeat.
    """
    return await _owe(db, [Ended(e.id, e.job_id, e.message) for e in ended])


async def owe_after_unreadable(db: Database, ids: Iterable[str]) -> int:
    """The same for executions whose documents cannot be read. What a message wanted told is in that document."""
    parsed = [(i, parse_execution_id(i)) for i in ids]
    return await _owe(db, [Ended(i, p.job_id) for i, p in parsed if p is not None and not is_message(p.job_id)])


async def owe_before_replay(db: Database, ids: Sequence[str]) -> int:
    """Owe what follows the results of these executions that a replay is about to take back, if nobody has made sure of it.

    Of those that are still owed: whoever ended them may have died before it wrote what follows, and a replay deletes them.
    Of those whose record is marked: no execution is left, and the mark says nothing once the record is reopened. Safe to
    repeat. Returns how many marks it met; one that is set later keeps its record from being reopened.
    """
    owed, unreadable = await executions.read_owed(db, ids)
    await owe_after(db, owed.values())
    ended = await followed.left_to_follow(db, ids, unreadable)
    if not ended:
        return 0
    await _owe(db, ended)
    marked = {e.id: e.state for e in ended if e.unfollowed}
    await followed.mark_followed(db, marked)
    return len(marked)


async def repair(db: Database) -> int:
    """Owe what follows results that came late, after another result had been recorded and the execution had gone.

    Whoever recorded such a result may have died before it wrote what follows. Returns how many there were.
    """
    ended = await followed.unfollowed(db, REPAIRED_AT_ONCE)
    if ended:
        await _owe(db, ended)
        await followed.mark_followed(db, {e.id: e.state for e in ended})
    return len(ended)


async def _owe(db: Database, ended: Sequence[Ended]) -> int:
    if not ended:
        return 0
    of_jobs = await followed.jobs(db, {e.job_id for e in ended if e.message is None and not is_message(e.job_id)})
    wanted = {e.id: f for e in ended if (f := _followed(e, of_jobs)) is not None and (f.callbacks or f.has_chained)}
    if not wanted:
        return 0
    results = await followed.results(db, wanted)
    # After the results: a job that was chained before an execution ended is met.
    chained = await followed.chained(db, {r.job_id for i, r in results.items() if wanted[i].has_chained})
    planned: list[Execution] = []
    for name, result in results.items():
        planned += [job.run_after(result) for job in chained.get(result.job_id, ()) if job.owes_run(result)]
        try:
            planned += _callbacks(result, wanted[name])
        except Exception:  # what one document says must not keep others from their end
            log.exception("callback_unwritable", execution=name)
    return await _insert(db, planned)


def _callbacks(result: EndedExecution, f: FollowedJob) -> list[Execution]:
    kind = kind_of(result.state)
    if kind is None or kind not in f.callbacks:
        return []
    return [callback_of(result, kind, f.callbacks[kind], f.retention_days)]


def _followed(e: Ended, of_jobs: Mapping[str, FollowedJob]) -> FollowedJob | None:
    return of_jobs.get(e.job_id) if e.message is None else followed_message(e.message)


async def _insert(db: Database, planned: Sequence[Execution]) -> int:
    """Executions, then history is asked, then batches.

    A follow-up that has run already is in history before it leaves `executions`. So if the insert met nothing, and history
    knows nothing, it is new; to ask first would miss one that ends in between.
    """
    if not planned:
        return 0
    plan = plan_messages(planned, NODES, lambda: uuid.uuid4().hex, max(e.send_ms for e in planned))
    existed = set(await executions.insert(db, plan.executions))
    fresh = {e.id: e for e in plan.executions if e.id not in existed}
    ran = await followed.recorded(db, fresh) if fresh else set()
    for name in sorted(ran):
        # It has no batch, so no node holds it. If the sweep has just made one, the claim finds the record.
        await executions.delete_unclaimed(db, fresh.pop(name))
    kept = [replace(b, ids=tuple(i for i in b.ids if i in fresh)) for b in plan.batches]
    await batches.insert(db, [b for b in kept if b.ids])
    if existed:  # who wrote them may have died before their batches existed
        await repair_batches(db, (await executions.owed(db, sorted(existed))).values())
    return len(fresh)
