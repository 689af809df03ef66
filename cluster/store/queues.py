"""`queues`: limits that several jobs share under a name. A name without a document limits nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.core.limits.permits import Limits
from cluster.store import audited
from cluster.store.audited import Subject
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database, Document


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue and its limits."""

    name: str
    limits: Limits
    updated_ms: int


def _subject(name: str) -> Subject:
    return Subject("queues", name, f"queue:{name}")


def _queue(d: Document) -> Queue:
    return Queue(d["_id"], Limits(d["max_per_second"], d["max_concurrent"]), int(d["updated_at"]))


async def limits_of(db: Database, name: str) -> Limits:
    """For the engine: the limits of a queue; no limits if there is no such queue."""
    with operation():
        d = await db.work["queues"].find_one({"_id": name})
    return Limits() if d is None else _queue(d).limits


async def put(db: Database, queue: Queue) -> bool:
    """Create or replace a queue. True if it was created."""
    fields = {
        "max_per_second": queue.limits.per_second,
        "max_concurrent": queue.limits.concurrent,
        "updated_at": DatetimeMS(queue.updated_ms),
    }
    return await audited.put(db, _subject(queue.name), fields, queue.updated_ms) is None


async def get(db: Database, name: str) -> Queue | None:
    """The queue; None if there is none."""
    with operation():
        d = await db.api["queues"].find_one({"_id": name})
    return None if d is None else _queue(d)


async def list_all(db: Database) -> list[Queue]:
    """Every queue, by name."""
    with operation():
        return [_queue(d) for d in await db.api["queues"].find().sort("_id", 1).to_list()]


async def delete(db: Database, name: str, now_ms: int) -> bool:
    """Delete a queue, so that nothing is limited under its name. False if there was none."""
    return await audited.delete(db, _subject(name), now_ms)
