"""`breakers`: one document per host whose circuit breaker is open or half open, written only when its state changes.

Every change is a compare-and-set on `rev`, so only one of several nodes sends the probe.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS
from pymongo.errors import DuplicateKeyError

from cluster.core.limits.circuit_breaker import Breaker
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Collection

    from cluster.store.mongo.client import Database, Document


def _breaker(d: Document) -> Breaker:
    return Breaker(
        host=d["_id"],
        half_open=d["half_open"],
        until_ms=int(d["until"]),
        opens=d["opens"],
        rev=d["rev"],
        opened_ms=int(d["opened_at"]),
        why=d["why"],
        node=d["node"],
        failed_jobs=tuple(d.get("failed_jobs") or ()),
    )


def _fields(b: Breaker) -> Document:
    return {
        "half_open": b.half_open,
        "until": DatetimeMS(b.until_ms),
        "opens": b.opens,
        "rev": b.rev,
        "opened_at": DatetimeMS(b.opened_ms),
        "why": b.why,
        "node": b.node,
        "failed_jobs": list(b.failed_jobs),
    }


async def list_all(db: Database) -> list[Breaker]:
    """Every breaker that is not closed."""
    with operation():
        return [_breaker(d) for d in await db.work["breakers"].find().to_list()]


async def of_hosts(db: Database, hosts: Collection[str]) -> list[Breaker]:
    """For operators: the breakers of these hosts that are not closed, by host."""
    with operation():
        documents = await db.api["breakers"].find({"_id": {"$in": list(hosts)}}).sort("_id", 1).to_list()
    return [_breaker(d) for d in documents]


async def earliest_opened(db: Database, limit: int) -> tuple[int, list[Breaker]]:
    """For operators: how many breakers are not closed, and the `limit` of them that opened first."""
    with operation():
        documents = await db.api["breakers"].find().sort([("opened_at", 1), ("_id", 1)]).limit(limit).to_list()
        total = len(documents) if len(documents) < limit else await db.api["breakers"].count_documents({})
    return total, [_breaker(d) for d in documents]


async def expired_unprobed(db: Database, before_ms: int, limit: int) -> list[Breaker]:
    """Up to `limit` breakers that could have been probed since an instant before `before_ms`, and were not."""
    with operation():
        documents = await db.work["breakers"].find({"until": {"$lt": DatetimeMS(before_ms)}}).limit(limit).to_list()
    return [_breaker(d) for d in documents]


async def trip(db: Database, opened: Breaker) -> bool:
    """Open the breaker of a host that was closed. False if another node was faster."""
    with operation():
        try:
            await db.work["breakers"].insert_one({"_id": opened.host, **_fields(opened)})
        except DuplicateKeyError:
            return False
    return True


async def replace_if_unchanged(db: Database, seen: Breaker, then: Breaker) -> Breaker | None:
    """Replace `seen` by `then` by compare-and-set. Returns the breaker as stored, None if another node changed it first."""
    stored = replace(then, rev=seen.rev + 1)
    with operation():
        result = await db.work["breakers"].update_one({"_id": seen.host, "rev": seen.rev}, {"$set": _fields(stored)})
    return stored if result.matched_count else None


async def close(db: Database, seen: Breaker) -> bool:
    """Close the breaker. False if another node changed it first."""
    with operation():
        result = await db.work["breakers"].delete_one({"_id": seen.host, "rev": seen.rev})
    return result.deleted_count > 0


async def close_answered(db: Database, seen: Breaker) -> bool:
    """Close the breaker because its host answered a probe. False if it is closed already, or was opened anew since.

    The probe may have held the host no more, and another one may be in flight: an answer is an answer all the same.
    """
    with operation():
        result = await db.work["breakers"].delete_one({"_id": seen.host, "opened_at": DatetimeMS(seen.opened_ms)})
    return result.deleted_count > 0
