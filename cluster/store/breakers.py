"""`breakers`: one document per host whose breaker is not closed, written when that changes and at no other time.

Every change is a compare-and-set on `rev`, so of several nodes that would send the probe one does.
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
        d["_id"], d["half_open"], int(d["until"]), d["opens"], d["rev"], int(d["opened_at"]), d["why"], d["node"]
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
    }


async def list_all(db: Database) -> list[Breaker]:
    """Every breaker that is not closed."""
    with operation():
        return [_breaker(d) for d in await db.work["breakers"].find().to_list()]


async def of_hosts(db: Database, hosts: Collection[str]) -> list[Breaker]:
    """For operators: those of these hosts, by host."""
    with operation():
        found = await db.api["breakers"].find({"_id": {"$in": list(hosts)}}).sort("_id", 1).to_list()
    return [_breaker(d) for d in found]


async def earliest_opened(db: Database, limit: int) -> tuple[int, list[Breaker]]:
    """For operators: how many there are in all, and those that opened first. Bounded: half the world may be away."""
    with operation():
        found = await db.api["breakers"].find().sort([("opened_at", 1), ("_id", 1)]).limit(limit).to_list()
        in_all = len(found) if len(found) < limit else await db.api["breakers"].count_documents({})
    return in_all, [_breaker(d) for d in found]


async def expired_unprobed(db: Database, before_ms: int, limit: int) -> list[Breaker]:
    """Those whose time was over before then and whom nobody has tried since: so many at most."""
    with operation():
        found = await db.work["breakers"].find({"until": {"$lt": DatetimeMS(before_ms)}}).limit(limit).to_list()
    return [_breaker(d) for d in found]


async def trip(db: Database, fresh: Breaker) -> bool:
    """Open a breaker that was closed. False if another node was faster."""
    with operation():
        try:
            await db.work["breakers"].insert_one({"_id": fresh.host, **_fields(fresh)})
        except DuplicateKeyError:
            return False
    return True


async def replace_if_unchanged(db: Database, seen: Breaker, then: Breaker) -> Breaker | None:
    """Compare-and-set. Returns what is now in force if it was us, None if somebody else changed it first."""
    then = replace(then, rev=seen.rev + 1)
    with operation():
        result = await db.work["breakers"].update_one({"_id": seen.host, "rev": seen.rev}, {"$set": _fields(then)})
    return then if result.matched_count else None


async def close(db: Database, seen: Breaker) -> bool:
    """Close it. False if somebody else changed it first."""
    with operation():
        result = await db.work["breakers"].delete_one({"_id": seen.host, "rev": seen.rev})
    return result.deleted_count > 0
