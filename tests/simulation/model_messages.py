"""The store's functions for messages and for what follows executions, in memory: the twins that `accept`, `cancel`, the
leader's mover and `owe_after` call.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from cluster.core.execution.follow_up import EndedExecution, kind_of
from cluster.core.execution.model import MESSAGE_VERSION, Execution
from cluster.core.ids import parse_execution_id
from cluster.store.dedups import Chosen
from cluster.store.followed import Ended
from cluster.store.history import REOPENED

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cluster.core.execution.follow_up import ChainedJob
    from cluster.core.job.message import NewMessage
    from cluster.store.dedups import Dedup
    from cluster.store.followed import FollowedJob
    from tests.simulation.model import Final, Store


def execution_of(_db: Store, m: NewMessage, execution_id: str) -> Execution:
    parts = parse_execution_id(execution_id)
    assert parts is not None
    return Execution(
        id=execution_id,
        job_id=parts.job_id,
        due_ms=parts.due_ms,
        send_ms=parts.due_ms,
        schedule_version=MESSAGE_VERSION,
        batch="",
        lane=0,
        trigger=True,
        message={"url": m.definition.url},
    )


async def insert(db: Store, waiting: Sequence[Execution]) -> None:
    if waiting:
        await db.write(*(lambda e=e: db.waiting.setdefault(e.id, e) for e in waiting))


async def due(
    db: Store, from_ms: int, before_ms: int, limit: int
) -> tuple[list[Execution], dict[str, str], int | None]:
    def effect() -> list[Execution]:
        fit = [e for e in db.waiting.values() if from_ms <= e.due_ms < before_ms]
        return sorted(fit, key=lambda e: (e.due_ms, e.id))[:limit]

    found: list[Execution] = await db.read(effect)
    return found, {}, found[-1].due_ms if len(found) == limit else None


async def delete(db: Store, ids: Collection[str]) -> int:
    if not ids:
        return 0
    gone = await db.write(*(lambda i=i: db.waiting.pop(i, None) for i in sorted(ids)))
    return sum(e is not None for e in gone)


async def reserve(db: Store, wanted: Sequence[Dedup], _now_ms: int) -> list[Chosen]:
    if not wanted:
        return []
    each = [(d.key, Chosen(d.digest, d.execution_id)) for d in wanted]
    stored = await db.write(*(partial(db.dedups.setdefault, key, mine) for key, mine in each))
    return list(stored)


async def known_ids(db: Store, ids: Collection[str]) -> set[str]:
    known: set[str] = set()
    wanted = sorted(ids)
    for collection in (db.waiting, db.executions, db.history):
        known |= await db.read(partial(_among, wanted, collection))
    return known


def _among(wanted: Sequence[str], collection: Mapping[str, Any]) -> set[str]:
    return {i for i in wanted if i in collection}


def _of(message_id: str, collection: dict[str, Execution]) -> Execution | None:
    return next((e for i, e in collection.items() if i.startswith(f"{message_id}:")), None)


async def waiting(db: Store, message_id: str) -> Execution | None:
    found: Execution | None = await db.read(lambda: _of(message_id, db.waiting))
    return found


async def owed(db: Store, message_id: str) -> Execution | None:
    found: Execution | None = await db.read(lambda: _of(message_id, db.executions))
    return found


async def recorded(db: Store, message_id: str) -> str | None:
    found: str | None = await db.read(
        lambda: next((f.state.value for i, f in db.history.items() if i.startswith(f"{message_id}:")), None)
    )
    return found


async def final_state(db: Store, execution_id: str) -> str | None:
    return await recorded(db, execution_id.partition(":")[0])


async def may_be_sent(db: Store, execution: Execution) -> bool:
    b = await db.read(lambda: db.batches.get(execution.batch))
    return bool(execution.token > 0 if b is None else b.owner is not None or b.claims > 0)


async def take_unsent(db: Store, unsent: Execution, batch: str) -> bool:
    def effect() -> bool:
        now = db.executions.get(unsent.id)
        as_read = (unsent.batch, unsent.token, unsent.owner)
        if now is None or now.attempts or (now.batch, now.token, now.owner) != as_read:
            return False
        db.executions[unsent.id] = replace(now, batch=batch, cancelled=True)
        return True

    return bool((await db.write(effect))[0])


async def delete_cancelled(db: Store, execution_id: str) -> None:
    def effect() -> None:
        now = db.executions.get(execution_id)
        if now is not None and now.cancelled:
            del db.executions[execution_id]

    await db.write(effect)


async def with_large_bodies(_db: Store, _ended: Sequence[Execution]) -> dict[str, Execution]:
    return {}


# -- what follows executions ---------------------------------------------------------------------------------------


async def results(db: Store, ids: Collection[str]) -> dict[str, EndedExecution]:
    def effect() -> dict[str, EndedExecution]:
        found = {}
        for i in sorted(ids):
            final, parts = db.history.get(i), parse_execution_id(i)
            if final is None or parts is None or final.reopened or kind_of(final.state) is None:
                continue
            found[i] = EndedExecution(i, parts.job_id, parts.due_ms, final.state.value, final.ended_ms)
        return found

    answer: dict[str, EndedExecution] = await db.read(effect)
    return answer


async def followed_jobs(db: Store, job_ids: Collection[str]) -> dict[str, FollowedJob]:
    wanted = sorted(job_ids)
    found: dict[str, FollowedJob] = await db.read(
        lambda: {i: db.followed_jobs[i] for i in wanted if i in db.followed_jobs}
    )
    return found


async def chained(db: Store, job_ids: Collection[str]) -> dict[str, list[ChainedJob]]:
    wanted = sorted(job_ids)
    if not wanted:
        return {}
    found: dict[str, list[ChainedJob]] = await db.read(
        lambda: {i: db.chained_jobs[i] for i in wanted if i in db.chained_jobs}
    )
    return found


async def recorded_ids(db: Store, ids: Collection[str]) -> set[str]:
    wanted = sorted(ids)
    found: set[str] = await db.read(lambda: {i for i in wanted if i in db.history})
    return found


async def unfollowed(db: Store, limit: int) -> list[Ended]:
    found: list[Ended] = await db.read(
        lambda: [_ended(db, i, f) for i, f in sorted(db.history.items()) if f.unfollowed][:limit]
    )
    return found


async def left_to_follow(db: Store, ids: Collection[str], also: Collection[str]) -> list[Ended]:
    wanted = sorted({*ids, *also})
    found: list[Ended] = await db.read(
        lambda: [
            _ended(db, i, db.history[i]) for i in wanted if i in db.history and (i in also or db.history[i].unfollowed)
        ]
    )
    return found


def _ended(db: Store, i: str, f: Final) -> Ended:
    return Ended(i, i.partition(":")[0], db.requests.get(i), _state(f), f.unfollowed)


def _state(f: Final) -> str:
    return REOPENED if f.reopened else f.state.value


async def mark_followed(db: Store, states: Mapping[str, str]) -> None:
    def effect(i: str) -> None:
        if i in db.history and _state(db.history[i]) == states[i]:
            db.history[i] = replace(db.history[i], unfollowed=False)

    if states:
        await db.write(*(partial(effect, i) for i in sorted(states)))


async def delete_unclaimed(db: Store, execution: Execution) -> bool:
    def effect() -> bool:
        now = db.executions.get(execution.id)
        if now is None or (now.batch, now.token) != (execution.batch, 0):
            return False
        del db.executions[execution.id]
        return True

    return bool((await db.write(effect))[0])


async def no_chained_ids(_db: Store, _job_ids: Collection[str]) -> dict[str, list[str]]:
    """Of jobs that users change none is chained."""
    return {}
