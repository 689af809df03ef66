"""`batches` that must wait for their host or limit: deferred in bulk, and released when the host may be tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.store.batches import OVERDUE_MS
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cluster.store.mongo.client import Database, Document

MAX_SPREAD_MS = 300_000
MIN_SPREAD_BATCHES = 16


def _waiting_for(host: str | Document) -> Document:
    return {"late": {"$in": [False, True]}, "owner": None, "host": host}


async def hosts_waiting(db: Database, limit: int) -> list[str]:
    """The hosts of what could be claimed now: that many at most, those that wait the longest."""
    pipeline: list[Document] = [
        {
            "$match": {
                "late": {"$in": [False, True]},
                "owner": None,
                "host": {"$gt": ""},
                "$expr": {"$lte": ["$claimable_at", "$$NOW"]},
            }
        },
        {"$group": {"_id": "$host", "since": {"$min": "$claimable_at"}}},
        {"$sort": {"since": 1, "_id": 1}},
        {"$limit": limit},
    ]
    with operation():
        found = await (await db.work["batches"].aggregate(pipeline)).to_list()
    return [d["_id"] for d in found]


async def defer_hosts(db: Database, until_ms: Mapping[str, int]) -> int:
    """What is claimable for hosts whose breakers are open becomes claimable when each may be tried again. One write.

    Claims leave it out anyway; this keeps them from walking over it. What is overdue is late work from then on.
    """
    hosts = list(until_ms)
    overdue = {"$lte": ["$send_at", {"$subtract": ["$$NOW", OVERDUE_MS]}]}
    # Lists and not an object: the name of a host has dots in it.
    place = {"$indexOfArray": [{"$literal": hosts}, "$host"]}
    until = {"$arrayElemAt": [{"$literal": [DatetimeMS(until_ms[host]) for host in hosts]}, place]}
    change = {"claimable_at": until, "late": {"$or": ["$late", overdue]}, "held": True}
    with operation():
        result = await db.work["batches"].update_many(
            {**_waiting_for({"$in": hosts}), "$expr": {"$lte": ["$claimable_at", "$$NOW"]}}, [{"$set": change}]
        )
    return result.modified_count


async def release_host(db: Database, host: str) -> int:
    """What was put off for a host is claimable now."""
    with operation():
        result = await db.work["batches"].update_many(
            {
                **_waiting_for(host),
                "$expr": {"$and": [{"$lte": ["$send_at", "$$NOW"]}, {"$gt": ["$claimable_at", "$$NOW"]}]},
            },
            [{"$set": {"claimable_at": "$$NOW", "held": "$$REMOVE"}}],
        )
    return result.modified_count


async def spread_late(db: Database, field: str, names: Sequence[str], interval_ms: int) -> int:
    """Late batches that nobody may take now come back one by one, about `apart_ms` apart, a few minutes at most.

    So a long backlog of one slow host (`field` is `host`) or limit (`gate`) is not walked over by every claim.
    """
    query = {"late": True, "owner": None, field: {"$in": list(names)}, "$expr": {"$lte": ["$claimable_at", "$$NOW"]}}
    with operation():
        waiting = await db.work["batches"].count_documents(query, limit=MAX_SPREAD_MS // interval_ms)
        if waiting < MIN_SPREAD_BATCHES:
            return 0
        later = {"$multiply": [{"$rand": {}}, waiting * interval_ms]}
        result = await db.work["batches"].update_many(
            query, [{"$set": {"claimable_at": {"$add": ["$$NOW", {"$toLong": later}]}, "held": True}}]
        )
    return result.modified_count
