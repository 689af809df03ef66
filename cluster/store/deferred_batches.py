"""`batches` of hosts and limits that may not be sent to now: deferred in bulk, and released when the host may be tried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.core.execution.planning import MAX_BATCH
from cluster.core.timings import LONGEST_PREFETCH_MS
from cluster.store.batches import OVERDUE_MS
from cluster.store.claimable_batches import WANTED_AT, unclaimed_for
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cluster.store.mongo.client import Database, Document

MAX_SPREAD_MS = 300_000
MIN_SPREAD_BATCHES = 16


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a backlog may come back: a batch in `interval_ms`, or `per_second` executions, whichever is more."""

    interval_ms: int
    per_second: int = 0


_READABLE: Document = {"ids": {"$type": "array"}, "send_at": {"$type": "date"}}
"""Of one unreadable batch the whole query would fail; it stays claimable, and whoever claims it rebuilds it."""


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
                {"$gte": ["$claimable_at", {"$subtract": ["$$NOW", unclaimed_ms + LONGEST_PREFETCH_MS]}]},
                {"$lte": [WANTED_AT, {"$subtract": ["$$NOW", since_ms]}]},
                {"$gte": [WANTED_AT, {"$subtract": ["$$NOW", unclaimed_ms]}]},
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
    db: Database, field: str, names: Sequence[str], pace: Pace, unclaimed_ms: int | None = None
) -> int:
    """Defer claimable late batches, at this pace, over at most `MAX_SPREAD_MS`. Returns how many.

    `field` is `host` or `gate` (limits). The long backlog of one slow host or limit is then not scanned by every claim.
    The oldest ones come back first: one that is spread again and again still comes before younger ones. Fewer than
    `MIN_SPREAD_BATCHES` stay as they are. `unclaimed_ms`: as in `defer_hosts`.
    """
    now: Document = {"$expr": {"$lte": ["$claimable_at", "$$NOW"]}}
    query: Document = {"late": True, "owner": None, field: {"$in": list(names)}, **_READABLE, **now}
    most = MAX_SPREAD_MS // pace.interval_ms
    counted = {
        # Those of a crowd are larger, and each part of one counts: the pace is that of usual batches.
        "waiting": {"$sum": {"$max": [1, {"$toInt": {"$ceil": {"$divide": [{"$size": "$ids"}, MAX_BATCH]}}}]}},
        "listed": {"$sum": {"$size": "$ids"}},
        "first": {"$min": "$send_at"},
        "last": {"$max": "$send_at"},
    }
    pipeline: list[Document] = [{"$match": query}, {"$group": {"_id": None, **counted}}]
    with operation():
        found = await (await db.work["batches"].aggregate(pipeline)).to_list()
        if not found or found[0]["waiting"] < MIN_SPREAD_BATCHES:
            return 0
        total = min(most, found[0]["waiting"]) * pace.interval_ms
        if pace.per_second:
            total = min(total, found[0]["listed"] * 1000 // pace.per_second)
        first, length = int(found[0]["first"]), int(found[0]["last"]) - int(found[0]["first"])
        by_chance: Document = {"$rand": {}}
        by_age = {"$divide": [{"$subtract": ["$send_at", {"$literal": DatetimeMS(first)}]}, max(1, length)]}
        place: Document = {"$min": [1, {"$max": [0, by_age]}]}
        share = {"$add": [{"$multiply": [place, 0.9]}, {"$multiply": [by_chance, 0.1]}]} if length else by_chance
        at = {"$add": ["$$NOW", {"$toLong": {"$multiply": [share, total]}}]}
        change = {"claimable_at": at, "held": True, "unclaimed": unclaimed_for(unclaimed_ms)}
        # Noted beside, so that what another reason defers later is never taken for spread.
        spread: list[Document] = [{"$set": change}, {"$set": {"spread": "$claimable_at"}}]
        result = await db.work["batches"].update_many(query, spread)
    return result.modified_count


def _spread(field: str, name: str | Document) -> Document:
    still = {"$and": [{"$gt": ["$claimable_at", "$$NOW"]}, {"$eq": ["$spread", "$claimable_at"]}]}
    return {"late": True, "owner": None, field: name, **_READABLE, "$expr": still}


async def spread_names(db: Database, field: str, names: Sequence[str]) -> set[str]:
    """Those of these hosts (`gate`: limits) of which late work is spread and not brought forward yet."""
    pipeline: list[Document] = [{"$match": _spread(field, {"$in": list(names)})}, {"$group": {"_id": f"${field}"}}]
    with operation():
        return {d["_id"] for d in await (await db.work["batches"].aggregate(pipeline)).to_list()}


async def bring_forward(db: Database, field: str, name: str, max_batches: int, max_executions: int) -> int:
    """Make late batches that were spread claimable now, those that would come next. Returns how many.

    `field`: as in `spread_late`. Only batches without an owner whose instant is still the one that they were spread to:
    what a breaker, a pause or a window has deferred since then stays. At least one is brought forward if there is one,
    however many executions it lists.
    """
    waiting: list[Document] = [
        {"$match": _spread(field, name)},
        {"$sort": {"claimable_at": 1}},
        {"$limit": max_batches},
        {"$project": {"size": {"$size": "$ids"}}},
    ]
    with operation():
        found = await (await db.work["batches"].aggregate(waiting)).to_list()
        chosen: list[str] = []
        room = max_executions
        for d in found:
            if chosen and d["size"] > room:
                break
            chosen.append(d["_id"])
            room -= d["size"]
        if not chosen:
            return 0
        result = await db.work["batches"].update_many(
            # Nobody claimed it meanwhile, and nobody deferred it anew: its instant would be another one.
            {"_id": {"$in": chosen}, "owner": None, "$expr": {"$eq": ["$spread", "$claimable_at"]}},
            [{"$set": {"claimable_at": "$$NOW", "held": "$$REMOVE", "spread": "$$REMOVE"}}],
        )
    if result.modified_count:
        db.upcoming.note(0)
    return result.modified_count


async def demote_overdue(db: Database, overdue_ms: int = OVERDUE_MS) -> int:
    """Turn batches overdue by more than `overdue_ms` into late work, so that a backlog never delays work due now."""
    with operation():
        before = {"$subtract": ["$$NOW", overdue_ms]}
        overdue = {"$and": [{"$lte": ["$claimable_at", before]}, {"$lte": [WANTED_AT, before]}]}
        result = await db.work["batches"].update_many(
            {"late": False, "$expr": overdue},
            {"$set": {"late": True}},
        )
    return result.modified_count
