"""`batches` before their first claim: when the next one is claimable, and which were never claimed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cluster.store.mongo.client import Database


async def next_claimable_ms(db: Database) -> int | None:
    """The earliest instant at which any batch is claimable, leased ones at the end of their lease; None: there is none.

    By the index alone: a third of what a claim costs that finds nothing.
    """
    query = {"late": {"$in": [False, True]}, "claimable_at": {"$type": "date"}}
    with operation():
        d = await db.work["batches"].find_one(query, {"_id": 0, "claimable_at": 1}, sort=[("claimable_at", 1)])
    return None if d is None else int(d["claimable_at"])


async def never_claimed(db: Database, ids: Iterable[str]) -> set[str]:
    """Those of these batches that exist and that no node has claimed, or has released before anything of it was sent."""
    with operation():
        documents = await db.work["batches"].find({"_id": {"$in": list(ids)}, "claims": 0}, {"_id": 1}).to_list()
    return {d["_id"] for d in documents}
