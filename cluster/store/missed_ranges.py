"""`history`: ranges of missed occurrences, each as one document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS
from pymongo import UpdateOne

from cluster.core.lifecycle import State
from cluster.store.history import DAY_MS, insert_new
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from cluster.store.mongo.client import Database, Document


@dataclass(frozen=True, slots=True)
class MissedRange:
    """Occurrences of one job that were owed and will not be sent; `first_ms` and `last_ms` are due times of occurrences."""

    job_id: str
    schedule_version: str
    first_ms: int
    last_ms: int
    count: int
    reason: str
    retention_days: float | None = None


async def between(
    db: Database, job_ids: Collection[str], start_ms: int, end_ms: int
) -> dict[str, list[tuple[int, int]]]:
    """By job id, `(first, last)` in ms of each missed range that begins between two instants."""
    query: Document = {
        "job_id": {"$in": list(job_ids)},
        "due_at": {"$gte": DatetimeMS(start_ms), "$lte": DatetimeMS(end_ms)},
        "state": State.MISSED.value,
    }
    by_job: dict[str, list[tuple[int, int]]] = {}
    with operation():
        async for d in db.work["history"].find(query, {"job_id": 1, "first_at": 1, "last_at": 1}):
            by_job.setdefault(d["job_id"], []).append((int(d["first_at"]), int(d["last_at"])))
    return by_job


async def record(db: Database, ranges: Iterable[MissedRange], now_ms: int, retention_days: float) -> None:
    """Record missed ranges, each under an id of its job and first instant, so that a repeated pass writes it once.

    A range that begins where a recorded one begins and reaches further extends it. This happens when a job is changed while
    one of its ranges is being caught up.
    """
    documents: list[Document] = [
        {
            "_id": f"{r.job_id}:{r.first_ms:013d}:missed",
            "job_id": r.job_id,
            "due_at": DatetimeMS(r.first_ms),
            "send_at": DatetimeMS(r.first_ms),
            "schedule_version": r.schedule_version,
            "state": State.MISSED.value,
            "reason": r.reason,
            "attempts": [],
            "drift_ms": None,
            "ended_at": DatetimeMS(now_ms),
            "expire_at": DatetimeMS(now_ms + int((r.retention_days or retention_days) * DAY_MS)),
            "trigger": False,
            "first_at": DatetimeMS(r.first_ms),
            "last_at": DatetimeMS(r.last_ms),
            "count": r.count,
            "mark": True,  # for every job, because the writer does not know its alert rules; there are few
        }
        for r in ranges
    ]
    await insert_new(db, documents)
    longer = [
        UpdateOne(
            {"_id": d["_id"], "last_at": {"$lt": d["last_at"]}},
            {
                "$set": {"last_at": d["last_at"], "extended_at": DatetimeMS(now_ms), "mark": True},
                "$max": {"count": d["count"], "expire_at": d["expire_at"]},
            },
        )
        for d in documents
    ]
    if longer:
        with operation():
            await db.work["history"].bulk_write(longer, ordered=False)
