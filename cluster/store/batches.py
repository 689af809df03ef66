"""`batches`: the unit of leasing. A claim is one `findOneAndUpdate`; the same operation reclaims an expired lease.

The life of a leased batch is here: insert, claim, renew, release, finish. Deferral for hosts and limits is in
`deferred_batches`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pymongo
from bson.datetime_ms import DatetimeMS
from pymongo import DeleteOne, ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError

from cluster.core.errors import InvariantBroken
from cluster.core.timings import ASKED_BY_ALL_MS, PREFETCH_MS
from cluster.store.claimable_batches import unclaimed_for
from cluster.store.mongo.batch_codec import batch_from_document, batch_to_document
from cluster.store.mongo.codec import instant
from cluster.store.mongo.decoding import decode_readable
from cluster.store.mongo.operation import duplicates, operation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cluster.core.execution.model import Batch
    from cluster.store.mongo.client import Database, Document


PEEK_LIMIT = 100
"""How many batches `delete_corrupt` looks at, of punctual and of late ones each."""
OVERDUE_MS = 15_000
"""A batch that was claimable for this long without being claimed becomes late work, which is sent behind work due now."""


async def insert(db: Database, batches: Sequence[Batch]) -> None:
    """Make sure that these batches exist and list their executions.

    Repair after a crash may insert a batch from several writers, each with the executions it knows of. So a batch that
    exists is extended, never replaced.
    """
    if not batches:
        return
    with operation():
        try:
            await db.work["batches"].insert_many([batch_to_document(b) for b in batches], ordered=False)
        except BulkWriteError as exc:
            existed = duplicates(exc)
            if existed is None:
                raise
            await db.work["batches"].bulk_write([_extension(batches[i]) for i in existed], ordered=False)
    db.upcoming.note(min(b.claimable_ms for b in batches))


def _extension(batch: Batch) -> UpdateOne:
    """The update that adds the executions of `batch` to the stored batch of the same id.

    The added executions may have a greater token than the stored batch, and the token of an execution must only grow. The
    stored token stays, since an owner may hold it by now; the next claim starts above `floor`.
    """
    others = {k: v for k, v in batch_to_document(batch).items() if k not in ("_id", "ids")}
    return UpdateOne(
        {"_id": batch.id},
        {
            "$addToSet": {"ids": {"$each": list(batch.ids)}},
            "$max": {"floor": batch.token},
            "$setOnInsert": others,
        },
        upsert=True,
    )


@dataclass(frozen=True, slots=True)
class ClaimFilter:
    """Which batches a node may claim now."""

    late: bool = False
    hosts_blocked: tuple[str, ...] = ()
    """Hosts that this node may not send to now. Batches for one of them only are left to other nodes, or for later."""
    limits_saturated: tuple[str, ...] = ()
    """Keys of limits that grant nothing now; batches under one of them are left for later."""
    unowned_only: bool = False
    max_claims: int | None = None
    """Batches claimed more often than this are left to other nodes, or for later."""
    behind_ms: int = 0
    """How far the primary's clock is behind cluster time; only with `unowned_only`, because leases end by that clock."""
    unclaimed_ms: int | None = None
    """A batch that was claimable for longer than this before its first claim stood unclaimed. None: none did."""
    patience_ms: int = 0
    """Batches that are not due soon are left to other nodes until they have been claimable for so long."""
    soon_only: bool = False
    """Only batches that are due within the usual prefetch, not those of a crowded second that may be claimed earlier."""


async def claim(
    db: Database, owner: str, lease_seconds: float, which: ClaimFilter, timeout_seconds: float
) -> Batch | None:
    """Lease the batch that has been claimable longest, by the database's clock; None if there is none.

    Raises `OutcomeUnknown` when no answer came in time: a batch may then be leased to `owner` (see `owned_by`).
    """
    now: Any = {"$add": ["$$NOW", which.behind_ms]} if which.behind_ms else "$$NOW"
    conditions: list[Document] = [{"$lte": ["$claimable_at", now]}]
    if which.patience_ms:
        since = {"$lte": ["$claimable_at", {"$subtract": [now, which.patience_ms]}]}
        soon = {"$lte": ["$send_at", {"$add": [now, ASKED_BY_ALL_MS]}]}
        conditions.append({"$or": [since, soon]})
    if which.soon_only:
        conditions.append({"$lte": ["$send_at", {"$add": [now, PREFETCH_MS]}]})
    query: Document = {"late": which.late, "$expr": conditions[0] if len(conditions) == 1 else {"$and": conditions}}
    if which.hosts_blocked:
        query["host"] = {"$nin": list(which.hosts_blocked)}
    if which.limits_saturated:
        query["gate"] = {"$nin": list(which.limits_saturated)}
    if which.unowned_only:
        query["owner"] = None
    if which.max_claims is not None:
        query["claims"] = {"$lte": which.max_claims}
    first = {"$and": [{"$eq": ["$claims", 0]}, {"$eq": ["$attempt", 0]}]}  # else it may have been sent, or has been
    update: list[Document] = [
        {
            "$set": {
                "unclaimed": unclaimed_for(which.unclaimed_ms, first=first),
                "owner": {"$literal": owner},
                "token": {"$add": [{"$max": ["$token", "$floor"]}, 1]},
                "claims": {"$add": ["$claims", 1]},
                "claimed_at": "$$NOW",
                "held": "$$REMOVE",
                "claimable_at": {"$add": ["$$NOW", int(lease_seconds * 1000)]},
            }
        }
    ]
    with operation(), pymongo.timeout(timeout_seconds):
        d = await db.work["batches"].find_one_and_update(
            query, update, sort=[("claimable_at", 1)], return_document=ReturnDocument.AFTER
        )
    if d is None:
        return None
    batch = batch_from_document(d)
    if d["claims"] is None or d["token"] is None:  # null + 1 is null: two claims would carry the same token
        raise InvariantBroken(f"batch {batch.id} cannot count its claims")
    return batch


async def delete_corrupt(db: Database) -> list[str]:
    """Delete batches that no claim can lease or read, among those that are claimable first. Returns their ids.

    Otherwise a corrupt batch that has been claimable longest would fail every claim of every node. All that a batch says
    follows from its executions, so the caller can rebuild it (`enqueue.repair_batches`).
    """
    with operation():
        first: list[Document] = []
        for late in (False, True):
            first += await db.work["batches"].find({"late": late}).sort("claimable_at", 1).limit(PEEK_LIMIT).to_list()
        corrupt = [d["_id"] for d in first if not _is_sound(d)]
        if corrupt:
            await db.work["batches"].delete_many({"_id": {"$in": corrupt}})
    return corrupt


def _is_sound(d: Document) -> bool:
    try:
        b = batch_from_document(d)
    except Exception:
        return False
    numbers = (b.token, b.claims, b.lane, b.attempt)
    return all(isinstance(n, int) for n in numbers) and all(isinstance(i, str) for i in (b.id, *b.ids))


async def renew(db: Database, owner: str, held: Iterable[tuple[str, int]], lease_seconds: float) -> set[str]:
    """Renew the leases of `(batch, token)` pairs. Returns the batches whose lease is lost."""
    by_token: defaultdict[int, list[str]] = defaultdict(list)
    for batch, token in held:
        by_token[token].append(batch)
    lost: set[str] = set()
    until = [{"$set": {"claimable_at": {"$add": ["$$NOW", int(lease_seconds * 1000)]}}}]
    with operation():
        for token, ids in by_token.items():
            leased = {"_id": {"$in": ids}, "owner": owner, "token": token}
            result = await db.control["batches"].update_many(leased, until)
            if result.matched_count < len(ids):
                still = await db.control["batches"].find(leased, {"_id": 1}).to_list()
                lost |= set(ids) - {d["_id"] for d in still}
    return lost


async def release(db: Database, batch: Batch, claimable_ms: int | None, *, nothing_sent: bool = False) -> bool:
    """Release a batch on its owner and token, claimable at an instant (None: at once). False if the lease was lost.

    `nothing_sent`: nothing of the batch was sent, so this claim does not count as one that may have killed a node. What
    stood unclaimed, and is not judged, stays so; else it counts anew, or was held back if it is deferred.
    """
    at: Any = "$$NOW" if claimable_ms is None else {"$literal": DatetimeMS(claimable_ms)}
    change: Document = {"owner": None, "claimable_at": at}
    if nothing_sent:
        change["claims"] = max(0, batch.claims - 1)
        change["held"] = claimable_ms is not None or "$$REMOVE"
        held_back = claimable_ms is not None and claimable_ms > batch.send_ms
        change["unclaimed"] = True if batch.unclaimed else False if held_back else "$$REMOVE"
        change["late"] = {"$or": ["$late", {"$lte": ["$send_at", {"$subtract": ["$$NOW", OVERDUE_MS]}]}]}
    with operation():
        result = await db.work["batches"].update_one(
            {"_id": batch.id, "owner": batch.owner, "token": batch.token},
            [{"$set": change}],
        )
    if result.matched_count:
        db.upcoming.note(claimable_ms or 0)
    return result.matched_count > 0


async def release_unrenewed(db: Database, batch: Batch) -> bool:
    """Release a batch of a node that seems dead. False if its lease was renewed or changed owner since it was read."""
    held = {"_id": batch.id, "owner": batch.owner, "token": batch.token}
    unrenewed = {**held, "claimable_at": DatetimeMS(batch.claimable_ms)}
    with operation():
        result = await db.work["batches"].update_one(unrenewed, [{"$set": {"owner": None, "claimable_at": "$$NOW"}}])
    if result.matched_count:
        db.upcoming.note(0)
    return result.matched_count > 0


async def delete_finished(db: Database, finished: Sequence[Batch]) -> set[str]:
    """Delete batches with nothing owed any more. Returns the ids of those that remain: lost, or extended meanwhile."""
    if not finished:
        return set()
    with operation():
        result = await db.work["batches"].bulk_write(
            [
                DeleteOne({"_id": b.id, "owner": b.owner, "token": b.token, "ids": {"$size": len(b.ids)}})
                for b in finished
            ],
            ordered=False,
        )
        if result.deleted_count == len(finished):
            return set()
        remaining = await db.work["batches"].find({"_id": {"$in": [b.id for b in finished]}}, {"_id": 1}).to_list()
    return {d["_id"] for d in remaining}


async def executions_listed(db: Database, ids: Iterable[str]) -> dict[str, set[str]]:
    """The executions that each of these batches lists, by batch id; batches that do not exist are absent."""
    with operation():
        documents = await db.work["batches"].find({"_id": {"$in": list(ids)}}, {"ids": 1}).to_list()
    return {d["_id"]: set(d["ids"]) for d in documents}


async def existing_ids(db: Database, ids: Iterable[str]) -> set[str]:
    """Those of these batches that exist."""
    with operation():
        documents = await db.work["batches"].find({"_id": {"$in": list(ids)}}, {"_id": 1}).to_list()
    return {d["_id"] for d in documents}


async def owned_by(db: Database, owner: str) -> list[Batch]:
    """Every readable batch that is leased to this owner."""
    with operation():
        documents = await db.work["batches"].find({"owner": owner}).to_list()
    return decode_readable("batch", documents, batch_from_document)


async def owners(db: Database) -> set[str]:
    """Every owner of at least one batch."""
    with operation():
        return set(await db.work["batches"].distinct("owner", {"owner": {"$ne": None}}))


async def count_late(db: Database, limit: int) -> int:
    """How many late batches there are, counted up to `limit`.

    Deferred ones do not count: the backlog of one slow host must not keep other jobs from catching up.
    """
    with operation():
        return await db.work["batches"].count_documents({"late": True, "held": {"$ne": True}}, limit=limit)


@dataclass(frozen=True, slots=True)
class LeasedBatch:
    """A leased batch as operators see it; `executions` is how many it lists."""

    id: str
    owner: str
    token: int
    claims: int
    claimed_ms: int | None
    expires_ms: int
    lane: int
    attempt: int
    late: bool
    executions: int


async def list_leased(db: Database) -> list[LeasedBatch]:
    """Every leased batch, the one whose lease ends first in front."""
    with operation():
        documents = await db.api["batches"].find({"owner": {"$ne": None}}).sort("claimable_at", 1).to_list()
    return [
        LeasedBatch(
            id=d["_id"],
            owner=d["owner"],
            token=d["token"],
            claims=d["claims"],
            claimed_ms=instant(d["claimed_at"]),
            expires_ms=int(d["claimable_at"]),
            lane=d["lane"],
            attempt=d["attempt"],
            late=d["late"],
            executions=len(d["ids"]),
        )
        for d in documents
    ]


@dataclass(frozen=True, slots=True)
class Backlog:
    """Executions: ready (due, not leased; `held_back`: deferred ones of these), leased, late; `oldest_ms`: earliest ready."""

    ready: int
    leased: int
    oldest_ms: int | None
    late: int
    held_back: int


async def backlog(db: Database) -> Backlog:
    """Count executions by the state of their batches, at the database's time."""
    size = {"$size": "$ids"}
    ready = {"$and": [{"$eq": ["$owner", None]}, {"$lte": ["$send_at", "$$NOW"]}]}
    pipeline: list[Document] = [
        {
            "$group": {
                "_id": None,
                "ready": {"$sum": {"$cond": [ready, size, 0]}},
                "held_back": {"$sum": {"$cond": [{"$and": [ready, {"$eq": ["$held", True]}]}, size, 0]}},
                "leased": {"$sum": {"$cond": [{"$ne": ["$owner", None]}, size, 0]}},
                "late": {"$sum": {"$cond": ["$late", size, 0]}},
                "oldest": {"$min": {"$cond": [ready, "$send_at", None]}},
            }
        }
    ]
    with operation():
        rows = await (await db.api["batches"].aggregate(pipeline)).to_list()
    row: Document = rows[0] if rows else dict.fromkeys(("ready", "leased", "late", "held_back"), 0) | {"oldest": None}
    return Backlog(row["ready"], row["leased"], instant(row["oldest"]), row["late"], row["held_back"])
