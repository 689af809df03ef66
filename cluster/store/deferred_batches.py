"""`batches` of hosts and limits that may not be sent to now: deferred in bulk, and released when the host may be tried."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.store.batches import OVERDUE_MS, unclaimed_for
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cluster.store.mongo.client import Database, Document

MAX_SPREAD_MS = 300_000
MIN_SPREAD_BATCHES = 16


def _unowned(host: str | Document) -> Document:
    # Both values of `late` are named so that the index on (late, claimable_at) can be used.
    return {"late": {"$in": [False, True]}, "owner": None, "host": host}


async def hosts_waiting(db: Database, limit: int) -> list[str]:
    """The hosts of batches that could be claimed now, the longest waiting first, at most `limit`."""
    pipeline: list[Document] = [
        {"$match": {**_unowned({"$gt": ""}), "$expr": {"$lte": ["$claimable_at", "$$NOW"]}}},
        {"$group": {"_id": "$host", "since": {"$min": "$claimable_at"}}},
        {"$sort": {"since": 1, "_id": 1}},
        {"$limit": limit},
    ]
    with operation():
        groups = await (await db.work["batches"].aggregate(pipeline)).to_list()
    return [g["_id"] for g in groups]


async def note_held_back(
    db: Database, hosts: Sequence[str], limits: Sequence[str], unclaimed_ms: int, since_ms: int
) -> int:
    """Note of batches of these hosts and limits that they did not stand unclaimed: a node leaves them alone now.

    Only of those that have been claimable for `since_ms`, and not for `unclaimed_ms` yet: an older one stood unclaimed
    before this node was there. Returns how many.
    """
    query: Document = {
        "late": {"$in": [False, True]},
        "owner": None,
        "attempt": 0,
        "unclaimed": {"$exists": False},
        "$or": [{"host": {"$in": list(hosts)}}, {"gate": {"$in": list(limits)}}],
        "$expr": {
            "$and": [
                {"$lte": ["$claimable_at", {"$subtract": ["$$NOW", since_ms]}]},
                {"$gte": ["$claimable_at", {"$subtract": ["$$NOW", unclaimed_ms]}]},
            ]
        },
    }
    with operation():
        return (await db.work["batches"].update_many(query, {"$set": {"unclaimed": False}})).modified_count


async def defer_hosts(db: Database, until_ms: Mapping[str, int], unclaimed_ms: int | None = None) -> int:
    """Defer the claimable batches of hosts with an open breaker: `{host: instant at which it may be tried}`. One write.

    Claims skip these batches anyway; deferring them spares each claim the scan over them. Those that are overdue become
    late work. Those claimable for longer than `unclaimed_ms` stood unclaimed; the others were held back by their host. Returns how many batches were deferred.
    """
    hosts = list(until_ms)
    overdue = {"$lte": ["$send_at", {"$subtract": ["$$NOW", OVERDUE_MS]}]}
    # Two lists and not an object: host names contain dots, which are no good in field names.
    position = {"$indexOfArray": [{"$literal": hosts}, "$host"]}
    until = {"$arrayElemAt": [{"$literal": [DatetimeMS(until_ms[host]) for host in hosts]}, position]}
    change = {"claimable_at": until, "late": {"$or": ["$late", overdue]}, "held": True}
    change["unclaimed"] = unclaimed_for(unclaimed_ms)
    with operation():
        result = await db.work["batches"].update_many(
            {**_unowned({"$in": hosts}), "$expr": {"$lte": ["$claimable_at", "$$NOW"]}}, [{"$set": change}]
        )
    return result.modified_count


async def release_host(db: Database, host: str) -> int:
    """Make the deferred batches of a host claimable now, if their send time has come. Returns how many."""
    with operation():
        result = await db.work["batches"].update_many(
            {
                **_unowned(host),
                "$expr": {"$and": [{"$lte": ["$send_at", "$$NOW"]}, {"$gt": ["$claimable_at", "$$NOW"]}]},
            },
            [{"$set": {"claimable_at": "$$NOW", "held": "$$REMOVE"}}],
        )
    return result.modified_count


async def spread_late(
    db: Database, field: str, names: Sequence[str], interval_ms: int, unclaimed_ms: int | None = None
) -> int:
    """Defer claimable late batches at random, about one per `interval_ms`, over at most `MAX_SPREAD_MS`. Returns how many.

    `field` is `host` or `gate` (limits). The long backlog of one slow host or limit is then not scanned by every claim.
    Fewer than `MIN_SPREAD_BATCHES` stay as they are. `unclaimed_ms`: as in `defer_hosts`.
    """
    query = {"late": True, "owner": None, field: {"$in": list(names)}, "$expr": {"$lte": ["$claimable_at", "$$NOW"]}}
    with operation():
        waiting = await db.work["batches"].count_documents(query, limit=MAX_SPREAD_MS // interval_ms)
        if waiting < MIN_SPREAD_BATCHES:
            return 0
        delay = {"$multiply": [{"$rand": {}}, waiting * interval_ms]}
        at = {"$add": ["$$NOW", {"$toLong": delay}]}
        change = {"claimable_at": at, "held": True, "unclaimed": unclaimed_for(unclaimed_ms)}
        result = await db.work["batches"].update_many(query, [{"$set": change}])
    return result.modified_count
