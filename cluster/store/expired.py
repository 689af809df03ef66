"""`history` as it is pruned: records whose retention has ended, deleted in portions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database


async def prune(db: Database, after_ms: int, now_ms: int, limit: int) -> tuple[int, int]:
    """Delete records that expired between `after_ms` and `now_ms`, the oldest first: `limit`, or more if they expired in
    the same ms. Returns how many were deleted, and up to which instant none is left.

    `after_ms` is for speed: without it each call would scan the index entries of records deleted before.
    """
    since = DatetimeMS(after_ms)
    with operation():
        edge = (
            await db.work["history"]
            .find({"expire_at": {"$gte": since, "$lte": DatetimeMS(now_ms)}}, {"expire_at": 1, "_id": 0})
            .sort("expire_at", 1)
            .skip(limit - 1)
            .limit(1)
            .to_list()
        )
        until = int(edge[0]["expire_at"]) if edge else now_ms
        result = await db.work["history"].delete_many({"expire_at": {"$gte": since, "$lte": DatetimeMS(until)}})
    return result.deleted_count, until
