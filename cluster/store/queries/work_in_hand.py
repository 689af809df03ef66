"""What the cluster has in hand, for operators: leases of batches, limits with who waits for them, ranges to catch up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.core.limits.permits import JOB_PREFIX, QUEUE_PREFIX, UNLIMITED, Limits
from cluster.store.mongo.codec import instant
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from cluster.store.mongo.client import Database, Document

NAMED = 5
"""Executions that are named of those that run or wait under one limit."""


@dataclass(frozen=True, slots=True)
class HeldLease:
    """The lease of a batch."""

    batch: str
    node: str
    token: int
    claims: int
    claimed_ms: int | None
    expires_ms: int
    executions: int
    attempt: int
    late: bool
    host: str


async def leases(db: Database, limit: int) -> tuple[int, list[HeldLease]]:
    """How many batches are leased, and those whose leases end first."""
    query = {"late": {"$in": [False, True]}, "owner": {"$ne": None}}
    with operation():
        in_all = await db.api["batches"].count_documents(query)
        documents = await db.api["batches"].find(query).sort("claimable_at", 1).limit(limit).to_list()
    return in_all, [
        HeldLease(
            batch=str(d["_id"]),
            node=str(d["owner"]),
            token=d["token"],
            claims=d["claims"],
            claimed_ms=instant(d["claimed_at"]),
            expires_ms=int(d["claimable_at"]),
            executions=len(d["ids"]),
            attempt=d["attempt"] + 1,
            late=d["late"],
            host=d.get("host", ""),
        )
        for d in documents
    ]


@dataclass(frozen=True, slots=True)
class LimitInUse:
    """A limit under which something runs or waits. `queue` or `job_id` says whose it is.

    `running`: executions with a permit, which only `concurrent` counts. `waiting`: executions that are due and have none.
    `next_ids`: those of them that were due first, a few.
    """

    queue: str | None
    job_id: str | None
    limits: Limits
    running: int
    running_ids: tuple[str, ...]
    waiting: int
    next_ids: tuple[str, ...]


async def limits_in_use(db: Database, limit: int) -> tuple[int, list[LimitInUse]]:
    """How many limits are in use, and those for which most executions wait.

    A batch of jobs with limits of their own is counted under a limit once it had to wait for that limit.
    """
    pipeline: list[Document] = [
        {"$match": {"gate": {"$exists": True}, "$expr": {"$lte": ["$send_at", "$$NOW"]}}},
        {"$sort": {"send_at": 1}},
        {
            "$group": {
                "_id": "$gate",
                "due": {"$sum": {"$size": "$ids"}},
                "first": {"$push": {"$slice": ["$ids", NAMED]}},
            }
        },
        {"$set": {"first": {"$slice": ["$first", NAMED * NAMED]}}},
    ]
    held_now = {"$match": {"held.0": {"$exists": True}}}
    shown = {"$project": {"n": {"$size": "$held"}, "held": {"$slice": ["$held", NAMED * NAMED]}}}
    with operation():
        due = {d["_id"]: d async for d in await db.api["batches"].aggregate(pipeline)}
        held = {d["_id"]: d async for d in await db.api["permits"].aggregate([held_now, shown])}
        limits = await _limits(db, {*due, *held})
    in_use = [_in_use(key, limits.get(key, UNLIMITED), due.get(key), held.get(key)) for key in {*due, *held}]
    in_use = [u for u in in_use if u.running or u.waiting]
    in_use.sort(key=lambda u: (-u.waiting, -u.running, u.queue or u.job_id or ""))
    return len(in_use), in_use[:limit]


def _in_use(key: str, limits: Limits, due: Document | None, held: Document | None) -> LimitInUse:
    running_ids = [] if held is None else [str(i) for i in held["held"]]
    running = 0 if held is None else int(held["n"])
    listed = [] if due is None else [str(i) for ids in due["first"] for i in ids]
    kind, name = key[:2], key[2:]
    return LimitInUse(
        queue=name if kind == QUEUE_PREFIX else None,
        job_id=name if kind == JOB_PREFIX else None,
        limits=limits,
        running=running,
        running_ids=tuple(running_ids[:NAMED]),
        waiting=0 if due is None else max(0, int(due["due"]) - running),
        next_ids=tuple([i for i in listed if i not in running_ids][:NAMED]),
    )


async def _limits(db: Database, keys: set[str]) -> dict[str, Limits]:
    queues = [k[2:] for k in keys if k.startswith(QUEUE_PREFIX)]
    jobs = [k[2:] for k in keys if k.startswith(JOB_PREFIX)]
    fields = {"max_per_second": 1, "max_concurrent": 1}
    known: dict[str, Limits] = {}
    for prefix, collection, names in ((QUEUE_PREFIX, "queues", queues), (JOB_PREFIX, "jobs", jobs)):
        if names:
            async for d in db.api[collection].find({"_id": {"$in": names}}, fields):
                known[prefix + d["_id"]] = Limits(d.get("max_per_second"), d.get("max_concurrent"))
    return known


@dataclass(frozen=True, slots=True)
class OpenRange:
    """Occurrences `from_ms <= due < to_ms` that nobody had written down; `reached_ms`: how far they are caught up."""

    schedule: str
    job_id: str | None
    from_ms: int
    to_ms: int
    noticed_ms: int
    reached_ms: int


async def open_ranges(db: Database, limit: int) -> tuple[int, list[OpenRange]]:
    """How many ranges are still to be caught up, and those that are furthest behind."""
    with operation():
        in_all = await db.api["backfills"].count_documents({})
        documents = await db.api["backfills"].find({}).sort([("cursor_at", 1), ("_id", 1)]).limit(limit).to_list()
    return in_all, [
        OpenRange(
            schedule=str(d["key"]),
            job_id=d["job_id"],
            from_ms=int(d["from"]),
            to_ms=int(d["to"]),
            noticed_ms=int(d["at"]),
            reached_ms=int(d["cursor_at"]),
        )
        for d in documents
    ]
