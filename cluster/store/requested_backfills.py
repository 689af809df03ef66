"""`requested_backfills`: requests to run a job for a time that has passed, and the progress of each.

The leader stores the page that it begins before it owes any execution of it, so the next leader after a crash owes exactly
that page. (`backfills` are the ranges that catch-up has found by itself.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS
from pymongo.errors import DuplicateKeyError

from cluster.core.actor import HORAE, Actor, actor_from_document
from cluster.core.lifecycle import State
from cluster.store import progress
from cluster.store.history import DAY_MS, REOPENED
from cluster.store.mongo.codec import date, instant
from cluster.store.mongo.operation import operation
from cluster.store.progress import RETENTION_MS, RUNNING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.store.mongo.client import Database, Document


@dataclass(frozen=True, slots=True)
class RequestedBackfill:
    """Occurrences `from_ms <= due < until_ms` of the schedule `key`, `count` of them, for one job.

    `again`: also what has run. Otherwise what was due before `known_ms` is left out, because its record may have expired
    at the time of the request. `cursor_ms`: up to where it was looked at. `page`: the due times that are being owed, since
    `page_ms`. `by`: who asked for it. `already`: occurrences that had a final record, or were owed; `unknown`: whose record may have expired.
    """

    id: str
    job_id: str
    key: str
    schedule_version: str
    from_ms: int
    until_ms: int
    again: bool
    per_second: float
    created_ms: int
    known_ms: int
    count: int
    cursor_ms: int
    by: Actor = HORAE
    state: str = RUNNING
    reason: str | None = None
    page: tuple[int, ...] = ()
    page_ms: int = 0
    next_ms: int = 0
    sent: int = 0
    already: int = 0
    unknown: int = 0
    ended_ms: int | None = None
    rev: int = 0


def _backfill(d: Document) -> RequestedBackfill:
    return RequestedBackfill(
        id=d["_id"],
        job_id=d["job_id"],
        key=d["key"],
        schedule_version=d["schedule_version"],
        from_ms=int(d["from"]),
        until_ms=int(d["until"]),
        again=d["again"],
        per_second=d["per_second"],
        created_ms=int(d["created_at"]),
        known_ms=int(d["known_at"]),
        count=d["count"],
        cursor_ms=int(d["cursor_at"]),
        by=actor_from_document(d["by"]),
        state=d["state"],
        reason=d["reason"],
        page=tuple(int(t) for t in d["page"]),
        page_ms=int(d["page_at"]),
        next_ms=int(d["next_at"]),
        sent=d["sent"],
        already=d["already"],
        unknown=d["unknown"],
        ended_ms=instant(d["ended_at"]),
        rev=d["rev"],
    )


def _progress(b: RequestedBackfill) -> Document:
    """The fields that change."""
    return {
        "state": b.state,
        "reason": b.reason,
        "cursor_at": DatetimeMS(b.cursor_ms),
        "page": [DatetimeMS(t) for t in b.page],
        "page_at": DatetimeMS(b.page_ms),
        "next_at": DatetimeMS(b.next_ms),
        "sent": b.sent,
        "already": b.already,
        "unknown": b.unknown,
        "ended_at": date(b.ended_ms),
        "rev": b.rev,
        **({} if b.ended_ms is None else {"expire_at": DatetimeMS(b.ended_ms + RETENTION_MS)}),
    }


async def insert(db: Database, backfill: RequestedBackfill) -> bool:
    """Store a new request. False if there is one of this id: the same request was made before."""
    document = {
        "_id": backfill.id,
        "job_id": backfill.job_id,
        "key": backfill.key,
        "schedule_version": backfill.schedule_version,
        "from": DatetimeMS(backfill.from_ms),
        "until": DatetimeMS(backfill.until_ms),
        "again": backfill.again,
        "per_second": backfill.per_second,
        "created_at": DatetimeMS(backfill.created_ms),
        "known_at": DatetimeMS(backfill.known_ms),
        "count": backfill.count,
        "by": backfill.by.to_document(),
        **_progress(backfill),
    }
    with operation():
        try:
            await db.api["requested_backfills"].insert_one(document)
        except DuplicateKeyError:
            return False
    return True


async def get(db: Database, backfill_id: str) -> RequestedBackfill | None:
    """The request with its progress; None if there is none, or its retention has ended."""
    with operation():
        d = await db.api["requested_backfills"].find_one({"_id": backfill_id})
    return None if d is None else _backfill(d)


async def of_job(
    db: Database, job_id: str, limit: int, before: tuple[int, str] | None = None
) -> list[RequestedBackfill]:
    """The latest requests for a job, the latest first; those before `(created in ms, id)` if given."""
    query: Document = {"job_id": job_id}
    if before is not None:
        at = DatetimeMS(before[0])
        query["$or"] = [{"created_at": {"$lt": at}}, {"created_at": at, "_id": {"$lt": before[1]}}]
    with operation():
        documents = (
            await db.api["requested_backfills"]
            .find(query)
            .sort([("created_at", -1), ("_id", -1)])
            .limit(limit)
            .to_list()
        )
    return [_backfill(d) for d in documents]


async def next_due(db: Database) -> RequestedBackfill | None:
    """The request that the leader works on next; None: all have ended."""
    d = await progress.next_due(db, "requested_backfills")
    return None if d is None else _backfill(d)


async def save(db: Database, backfill: RequestedBackfill) -> RequestedBackfill | None:
    """Store the progress by compare-and-set on `rev`. Returns the request as stored; None if it was stopped, or another
    leader was faster.
    """
    saved = replace(backfill, rev=backfill.rev + 1)
    stored = await progress.save(db, "requested_backfills", backfill.id, backfill.rev, _progress(saved))
    return saved if stored else None


async def save_page(db: Database, backfill: RequestedBackfill) -> None:
    """Store that its page is owed, also if the request was stopped meanwhile. A page that another leader has noted as owed
    is not counted twice.
    """
    this_page = {"_id": backfill.id, "page_at": DatetimeMS(backfill.page_ms), "page.0": DatetimeMS(backfill.page[0])}
    with operation():
        await db.work["requested_backfills"].update_one(
            this_page,
            {"$set": {"page": [], "page_at": DatetimeMS(0)}, "$inc": {"sent": len(backfill.page), "rev": 1}},
        )


async def stop(db: Database, backfill_id: str, now_ms: int) -> RequestedBackfill | None:
    """Stop a request that is running. Returns it as it is now; None if there is none."""
    await progress.stop(db, "requested_backfills", backfill_id, now_ms)
    return await get(db, backfill_id)


async def not_missed(db: Database, ids: Sequence[str]) -> set[str]:
    """Those of these executions that have a record other than `missed`."""
    query = {"_id": {"$in": list(ids)}, "state": {"$ne": State.MISSED.value}}
    with operation():
        return {d["_id"] async for d in db.work["history"].find(query, {"_id": 1})}


async def final_dues(db: Database, job_id: str, from_ms: int, until_ms: int) -> list[int]:
    """The due times of one job, in order, that have a final record of their own other than `missed`."""
    query = {
        "_id": {"$gte": f"{job_id}:{from_ms:013d}", "$lt": f"{job_id}:{until_ms:013d}"},
        "state": {"$nin": [State.MISSED.value, REOPENED]},
    }
    prefix = len(job_id) + 1
    with operation():
        cursor = db.api["history"].find(query, {"_id": 1}).sort("_id", 1)
        ids = [str(d["_id"])[prefix:] async for d in cursor]
    return [int(due) for due in ids if len(due) == 13]


async def missed_ranges_across(db: Database, job_id: str, from_ms: int, until_ms: int) -> list[tuple[int, int, int]]:
    """The missed ranges that are partly within a time: the first and the last occurrence, and how many there are."""
    fields = {"state": 1, "first_at": 1, "last_at": 1, "count": 1}
    place = f"{job_id}:{from_ms:013d}"
    before: Document = {"_id": {"$gte": f"{job_id}:", "$lt": place}}
    within: Document = {
        "_id": {"$gte": place, "$lt": f"{job_id}:{until_ms:013d}"},
        "state": State.MISSED.value,
        "last_at": {"$gte": DatetimeMS(until_ms)},
    }
    with operation():
        found = await db.api["history"].find(before, fields).sort("_id", -1).limit(1).to_list()
        found += await db.api["history"].find(within, fields).sort("_id", 1).to_list()
    return [
        (int(d["first_at"]), int(d["last_at"]), d["count"])
        for d in found
        if d["state"] == State.MISSED.value and "count" in d and int(d["last_at"]) >= from_ms
    ]


async def reopen_missed(db: Database, ids: Sequence[str], asked_ms: int, now_ms: int, days: float) -> None:
    """Reopen the `missed` records of these executions, so that they may be sent. Safe to repeat: what has ended since is
    not `missed` any more.
    """
    update = {
        "$set": {"state": REOPENED, "expire_at": DatetimeMS(now_ms + int(days * DAY_MS))},
        "$max": {"asked_at": DatetimeMS(asked_ms)},
        "$unset": {"first_at": "", "last_at": "", "count": ""},
    }
    with operation():
        await db.work["history"].update_many({"_id": {"$in": list(ids)}, "state": State.MISSED.value}, update)


async def delete_missed_ranges(db: Database, backfill: RequestedBackfill, from_ms: int, until_ms: int) -> None:
    """Delete the missed ranges of its schedule that lie between two instants: each of their occurrences has a record of
    its own, or is owed.
    """
    query = {
        "_id": {"$gte": f"{backfill.job_id}:{from_ms:013d}:", "$lt": f"{backfill.job_id}:{until_ms:013d}"},
        "state": State.MISSED.value,
        "schedule_version": backfill.schedule_version,
        "first_at": {"$gte": DatetimeMS(from_ms)},
        "last_at": {"$lt": DatetimeMS(until_ms)},
        "count": {"$exists": True},
    }
    with operation():
        ranges = await db.work["history"].find(query, {"_id": 1}).to_list()
        ids = [d["_id"] for d in ranges if str(d["_id"]).endswith(":missed")]
        if ids:
            await db.work["history"].delete_many({"_id": {"$in": ids}, "last_at": {"$lt": DatetimeMS(until_ms)}})
