"""`batches` before their first claim: when the next one is claimable, and which were never claimed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from bson.datetime_ms import DatetimeMS

from cluster.core.timings import ASKED_BY_ALL_MS, PREFETCH_MS
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cluster.store.mongo.client import Database, Document


_DUE_SOON_AT = {"$max": ["$claimable_at", {"$subtract": ["$send_at", PREFETCH_MS]}]}
WANTED_AT = {"$cond": [{"$eq": [{"$type": "$send_at"}, "date"]}, _DUE_SOON_AT, "$claimable_at"]}
"""An expression: since when a batch should have been claimed. One of a crowded second may be claimed earlier, and need not be.
Of one whose send time cannot be read it is when it could be claimed: the whole query would fail otherwise.
"""


_ALL: Document = {"late": {"$in": [False, True]}}
FIRST = 12
"""So many batches a look reads at once. Only where more of them are claimable soon does it ask a second time."""


class NextClaimable(NamedTuple):
    """The earliest instant at which a node may claim any batch, and the primary's clock when it was read (ms)."""

    at_ms: int
    now_ms: int
    left_to_others: bool = False
    """Until then it is left to other nodes, which may have claimed it by then."""


async def next_claimable(db: Database, patience_ms: int = 0) -> NextClaimable | None:
    """When a node of this patience may claim the first batch, leased ones at the end of their lease; None: there is no batch.

    By the index alone without patience: a third of what a claim costs that finds nothing. An instant that cannot be read is
    now: a claim finds out, and has the batch rebuilt.
    """
    wanted = {"_id": 0, "claimable_at": 1, "now": "$$NOW", **({"send_at": 1} if patience_ms else {})}
    with operation():
        first = db.work["batches"].find(_ALL, wanted, sort=[("claimable_at", 1)], limit=FIRST if patience_ms else 1)
        found = await first.to_list()
        if not found:
            return None
        at, due, now_ms = found[0].get("claimable_at"), found[0].get("send_at"), int(found[0]["now"])
        if not isinstance(at, DatetimeMS) or not isinstance(due, DatetimeMS) or int(due) <= int(at):
            return NextClaimable(int(at) if isinstance(at, DatetimeMS) else now_ms, now_ms)
        until_ms = min(int(at) + patience_ms, max(int(at), int(due) - ASKED_BY_ALL_MS))
        # What is due soon after that is left to nobody until then.
        sooner_ms = await _asked_by_all(db, found, until_ms) if until_ms > now_ms else None
    if sooner_ms is not None:
        return NextClaimable(sooner_ms, now_ms)
    return NextClaimable(until_ms, now_ms, left_to_others=until_ms < int(due) - ASKED_BY_ALL_MS)


async def _asked_by_all(db: Database, found: Sequence[Document], until_ms: int) -> int | None:
    """When the first batch that is claimable before an instant, and due soon after it, is left to nobody. `found`: the first ones."""
    last = found[-1].get("claimable_at")
    if len(found) < FIRST or (isinstance(last, DatetimeMS) and int(last) >= until_ms):  # all of them were read
        each = [(d.get("claimable_at"), d.get("send_at")) for d in found]
        soon = [(a, s) for a, s in each if _is_before(a, until_ms) and _is_before(s, until_ms + ASKED_BY_ALL_MS)]
        return min((max(int(a), int(s) - ASKED_BY_ALL_MS) for a, s in soon), default=None)
    at_once = {"$min": {"$max": ["$claimable_at", {"$subtract": ["$send_at", ASKED_BY_ALL_MS]}]}}
    before, due_before = DatetimeMS(until_ms), DatetimeMS(until_ms + ASKED_BY_ALL_MS)
    match = {**_ALL, "claimable_at": {"$lt": before}, "send_at": {"$lt": due_before}}
    cursor = await db.work["batches"].aggregate([{"$match": match}, {"$group": {"_id": None, "at": at_once}}])
    sooner = await cursor.to_list()
    return int(sooner[0]["at"]) if sooner else None


def _is_before(value: Any, instant_ms: int) -> TypeGuard[DatetimeMS]:
    return isinstance(value, DatetimeMS) and int(value) < instant_ms


async def never_claimed(db: Database, ids: Iterable[str]) -> set[str]:
    """Those of these batches that exist and that no node has claimed, or has released before anything of it was sent."""
    with operation():
        documents = await db.work["batches"].find({"_id": {"$in": list(ids)}, "claims": 0}, {"_id": 1}).to_list()
    return {d["_id"] for d in documents}


def unclaimed_for(unclaimed_ms: int | None, *, first: Any = None) -> Any:
    """An expression: whether a batch stood unclaimed, if that is not known yet; only if `first` holds of it."""
    stood = {"$lt": [WANTED_AT, {"$subtract": ["$$NOW", unclaimed_ms or 0]}]}
    return False if unclaimed_ms is None else {"$and": [first or True, {"$ifNull": ["$unclaimed", stood]}]}
