"""`batches`: the unit of leasing. A claim is one `findOneAndUpdate`, and it is also the reclaim of an expired lease."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pymongo
from bson.datetime_ms import DatetimeMS
from pymongo import DeleteOne, ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError

from cluster.core.errors import InvariantBroken
from cluster.store.mongo.codec import batch_from_document, batch_to_document, instant
from cluster.store.mongo.decoding import decode_readable
from cluster.store.mongo.operation import duplicates, operation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cluster.core.execution.model import Batch
    from cluster.store.mongo.client import Database, Document


OVERDUE_MS = 15_000
"""A batch nobody claimed for so long is late work: it goes out behind what is due now."""


async def insert(db: Database, batches: Sequence[Batch]) -> None:
    """Make sure that these batches exist and list their executions.

    Several writers may insert the same batch, each with the executions it knows of (repair after a crash), so one
    that exists is extended, never replaced.
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


def _extension(batch: Batch) -> UpdateOne:
    """What is added to a batch that exists may come from one with a greater token, and tokens of an execution only grow.

    Its token itself may be an owner's by now, and stays; the next claim begins above the `floor`.
    """
    rest = {k: v for k, v in batch_to_document(batch).items() if k not in ("_id", "ids")}
    return UpdateOne(
        {"_id": batch.id},
        {
            "$addToSet": {"ids": {"$each": list(batch.ids)}},
            "$max": {"floor": batch.token},
            "$setOnInsert": rest,
        },
        upsert=True,
    )


@dataclass(frozen=True, slots=True)
class ClaimFilter:
    """Which batches a node may claim now."""

    late: bool = False
    hosts_blocked: tuple[str, ...] = ()
    """Hosts that this node may not send to now: what goes to one of them alone is left for later, or to others."""
    limits_saturated: tuple[str, ...] = ()
    unowned_only: bool = False
    max_claims: int | None = None
    """What was claimed more often than this is left to others, or for later."""


async def claim(
    db: Database, owner: str, lease_seconds: float, which: ClaimFilter, timeout_seconds: float
) -> Batch | None:
    """Lease the batch that has been claimable longest, by the database's clock; None if there is none.

    Raises `OutcomeUnknown` when no answer came in time: the batch may then carry our name (see `strays`).
    """
    query: Document = {"late": which.late, "$expr": {"$lte": ["$claimable_at", "$$NOW"]}}
    if which.hosts_blocked:
        query["host"] = {"$nin": list(which.hosts_blocked)}
    if which.limits_saturated:
        query["gate"] = {"$nin": list(which.limits_saturated)}
    if which.unowned_only:
        query["owner"] = None
    if which.max_claims is not None:
        query["claims"] = {"$lte": which.max_claims}
    update: list[Document] = [
        {
            "$set": {
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
        found = await db.work["batches"].find_one_and_update(
            query, update, sort=[("claimable_at", 1)], return_document=ReturnDocument.AFTER
        )
    if found is None:
        return None
    batch = batch_from_document(found)
    if (
        found["claims"] is None or found["token"] is None
    ):  # null + 1 is null: nobody could tell his claim from another's
        raise InvariantBroken(f"batch {batch.id} cannot count its claims")
    return batch


PEEK_LIMIT = 100


async def delete_corrupt(db: Database) -> list[str]:
    """Delete those of the batches claimable first that no claim can take or read. Returns their ids.

    Without this, the one that has been claimable longest would fail every claim of every node. A batch holds nothing
    that its executions do not say as well, so the caller has it rebuilt from them (`owing.repair`).
    """
    with operation():
        found: list[Document] = []
        for late in (False, True):
            found += await db.work["batches"].find({"late": late}).sort("claimable_at", 1).limit(PEEK_LIMIT).to_list()
        unsound = [d["_id"] for d in found if not _sound(d)]
        if unsound:
            await db.work["batches"].delete_many({"_id": {"$in": unsound}})
    return unsound


def _sound(d: Document) -> bool:
    try:
        b = batch_from_document(d)
    except Exception:
        return False
    numbers = (b.token, b.claims, b.lane, b.attempt)
    return all(isinstance(n, int) for n in numbers) and all(isinstance(i, str) for i in (b.id, *b.ids))


async def renew(db: Database, owner: str, held: Iterable[tuple[str, int]], lease_seconds: float) -> set[str]:
    """Extend the leases of `(batch, token)` pairs. Returns the batches that are no longer ours."""
    by_token: defaultdict[int, list[str]] = defaultdict(list)
    for batch, token in held:
        by_token[token].append(batch)
    lost: set[str] = set()
    until = [{"$set": {"claimable_at": {"$add": ["$$NOW", int(lease_seconds * 1000)]}}}]
    with operation():
        for token, ids in by_token.items():
            mine = {"_id": {"$in": ids}, "owner": owner, "token": token}
            result = await db.control["batches"].update_many(mine, until)
            if result.matched_count < len(ids):
                still = await db.control["batches"].find(mine, {"_id": 1}).to_list()
                lost |= set(ids) - {d["_id"] for d in still}
    return lost


async def release(db: Database, batch: Batch, claimable_ms: int | None, *, nothing_sent: bool = False) -> bool:
    """Hand a batch back on its token, claimable at an instant (None: at once). False if it was not ours any more.

    `untouched`: nothing of it was sent, so that this claim does not count against it.
    """
    at: Any = "$$NOW" if claimable_ms is None else {"$literal": DatetimeMS(claimable_ms)}
    change: Document = {"owner": None, "claimable_at": at}
    if nothing_sent:
        change["claims"] = max(0, batch.claims - 1)
        change["held"] = claimable_ms is not None or "$$REMOVE"
        change["late"] = {"$or": ["$late", {"$lte": ["$send_at", {"$subtract": ["$$NOW", OVERDUE_MS]}]}]}
    with operation():
        result = await db.work["batches"].update_one(
            {"_id": batch.id, "owner": batch.owner, "token": batch.token},
            [{"$set": change}],
        )
    return result.matched_count > 0


async def release_unrenewed(db: Database, batch: Batch) -> bool:
    """Free a batch of somebody who seems to be dead. False if it was renewed, or changed hands, since it was read."""
    with operation():
        result = await db.work["batches"].update_one(
            {
                "_id": batch.id,
                "owner": batch.owner,
                "token": batch.token,
                "claimable_at": DatetimeMS(batch.claimable_ms),
            },
            [{"$set": {"owner": None, "claimable_at": "$$NOW"}}],
        )
    return result.matched_count > 0


async def delete_finished(db: Database, finished: Sequence[Batch]) -> set[str]:
    """Delete batches of which nothing is owed any more. Returns those that could not be: lost, or grown meanwhile."""
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
        left = await db.work["batches"].find({"_id": {"$in": [b.id for b in finished]}}, {"_id": 1}).to_list()
    return {d["_id"] for d in left}


async def executions_listed(db: Database, ids: Iterable[str]) -> dict[str, set[str]]:
    """Those of `ids` that exist, each with the executions it lists."""
    with operation():
        found = await db.work["batches"].find({"_id": {"$in": list(ids)}}, {"ids": 1}).to_list()
    return {d["_id"]: set(d["ids"]) for d in found}


async def existing_ids(db: Database, ids: Iterable[str]) -> set[str]:
    """Those of `ids` that exist."""
    with operation():
        found = await db.work["batches"].find({"_id": {"$in": list(ids)}}, {"_id": 1}).to_list()
    return {d["_id"] for d in found}


async def owned_by(db: Database, owner: str) -> list[Batch]:
    """Every batch that carries this owner's name."""
    with operation():
        found = await db.work["batches"].find({"owner": owner}).to_list()
    return decode_readable("batch", found, batch_from_document)


async def owners(db: Database) -> set[str]:
    """Who holds at least one batch."""
    with operation():
        found = await db.work["batches"].distinct("owner", {"owner": {"$ne": None}})
    return set(found)


async def demote_overdue(db: Database, overdue_ms: int = OVERDUE_MS) -> int:
    """Turn batches overdue by more than `overdue_ms` into late work, so that a backlog never delays what is due now."""
    with operation():
        result = await db.work["batches"].update_many(
            {"late": False, "$expr": {"$lte": ["$claimable_at", {"$subtract": ["$$NOW", overdue_ms]}]}},
            {"$set": {"late": True}},
        )
    return result.modified_count


async def count_late(db: Database, limit: int) -> int:
    """How many late batches live, counted up to `limit`.

    What is held back for its target's sake is not counted: it would keep others from catching up.
    """
    with operation():
        return await db.work["batches"].count_documents({"late": True, "held": {"$ne": True}}, limit=limit)


@dataclass(frozen=True, slots=True)
class LeasedBatch:
    """A live lease as operators see it."""

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
    """Every batch that somebody holds, the one that ends first on top."""
    with operation():
        found = await db.api["batches"].find({"owner": {"$ne": None}}).sort("claimable_at", 1).to_list()
    return [
        LeasedBatch(
            d["_id"],
            d["owner"],
            d["token"],
            d["claims"],
            instant(d["claimed_at"]),
            int(d["claimable_at"]),
            d["lane"],
            d["attempt"],
            d["late"],
            len(d["ids"]),
        )
        for d in found
    ]


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is claimable but not claimed, what is leased (in executions), and the oldest instant of the former."""

    ready: int
    leased: int
    oldest_ms: int | None
    late: int


async def backlog(db: Database) -> Backlog:
    """Count executions by what their batches say, by the database's clock."""
    size = {"$size": "$ids"}
    ready = {"$and": [{"$eq": ["$owner", None]}, {"$lte": ["$send_at", "$$NOW"]}]}
    pipeline: list[Document] = [
        {
            "$group": {
                "_id": None,
                "ready": {"$sum": {"$cond": [ready, size, 0]}},
                "leased": {"$sum": {"$cond": [{"$ne": ["$owner", None]}, size, 0]}},
                "late": {"$sum": {"$cond": ["$late", size, 0]}},
                "oldest": {"$min": {"$cond": [ready, "$send_at", None]}},
            }
        }
    ]
    with operation():
        rows = await (await db.api["batches"].aggregate(pipeline)).to_list()
    if not rows:
        return Backlog(0, 0, None, 0)
    row = rows[0]
    return Backlog(row["ready"], row["leased"], instant(row["oldest"]), row["late"])
