"""`batches` before their first claim: when the next one is claimable, and which were never claimed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from bson.datetime_ms import DatetimeMS

from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cluster.store.mongo.client import Database


class NextClaimable(NamedTuple):
    """The earliest instant at which any batch is claimable, and the primary's clock when it was read (ms)."""

    at_ms: int
    now_ms: int
    due_ms: int = 0
    """When that batch is due; 0 if this was not asked."""


async def next_claimable(db: Database, *, with_due: bool = False) -> NextClaimable | None:
    """When the first batch is claimable, leased ones at the end of their lease; None: there is no batch.

    By the index alone, if it is not asked when that batch is due: a third of what a claim costs that finds nothing. An instant
    that cannot be read is now: a claim finds out, and has the batch rebuilt.
    """
    query = {"late": {"$in": [False, True]}}
    wanted = {"_id": 0, "claimable_at": 1, "now": "$$NOW", **({"send_at": 1} if with_due else {})}
    with operation():
        d = await db.work["batches"].find_one(query, wanted, sort=[("claimable_at", 1)])
    if d is None:
        return None
    at, due, now_ms = d.get("claimable_at"), d.get("send_at"), int(d["now"])
    due_ms = int(due) if isinstance(due, DatetimeMS) else 0
    return NextClaimable(int(at) if isinstance(at, DatetimeMS) else now_ms, now_ms, due_ms)


async def never_claimed(db: Database, ids: Iterable[str]) -> set[str]:
    """Those of these batches that exist and that no node has claimed, or has released before anything of it was sent."""
    with operation():
        documents = await db.work["batches"].find({"_id": {"$in": list(ids)}, "claims": 0}, {"_id": 1}).to_list()
    return {d["_id"] for d in documents}


def unclaimed_for(unclaimed_ms: int | None, *, first: Any = None) -> Any:
    """An expression: whether a batch stood unclaimed, if that is not known yet; only if `first` holds of it."""
    stood = {"$lt": ["$claimable_at", {"$subtract": ["$$NOW", unclaimed_ms or 0]}]}
    return False if unclaimed_ms is None else {"$and": [first or True, {"$ifNull": ["$unclaimed", stood]}]}
