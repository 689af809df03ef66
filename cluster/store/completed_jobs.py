"""Completed jobs that are kept no longer: which they are, and which of them are not over yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.core.ids import execution_id
from cluster.core.lifecycle import JobState
from cluster.store.history import DAY_MS, REOPENED
from cluster.store.mongo.calendar_fields import regular_key
from cluster.store.mongo.operation import operation
from cluster.store.progress import RUNNING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.store.mongo.client import Database, Document


@dataclass(frozen=True, slots=True)
class CompletedJob:
    """A completed job whose time is over. `ended_ms`: its end, which of an `@at` is its occurrence."""

    id: str
    revision: int
    schedule_key: str
    ended_ms: int
    runs_once: bool


async def to_remove(
    db: Database, now_ms: int, default_days: float, limit: int, exclude: Sequence[str]
) -> list[CompletedJob]:
    """Up to `limit` completed jobs that are kept no longer: by their own setting, or `default_days` after their end.

    Alert jobs are none of them. `exclude`: ids that are left out.
    """
    own: Document = {"remove_at": {"$type": "date", "$lte": DatetimeMS(now_ms)}}
    default: Document = {"remove_at": None, "ends_at": {"$lte": DatetimeMS(now_ms - int(default_days * DAY_MS))}}
    found: list[Document] = []
    for condition, order in ((own, "remove_at"), (default, "ends_at")):
        if len(found) == limit:
            break
        query = {"state": JobState.COMPLETED.value, "channel": None, "unsettled": None, **condition}
        if exclude:
            query["_id"] = {"$nin": list(exclude)}
        fields = dict.fromkeys(("revision", "schedule_key", "ends_at"), 1)
        with operation():
            found += await db.work["jobs"].find(query, fields).sort(order, 1).limit(limit - len(found)).to_list()
    return [
        CompletedJob(
            id=d["_id"],
            revision=d["revision"],
            schedule_key=d["schedule_key"],
            ended_ms=int(d["ends_at"]),
            runs_once=regular_key(d["schedule_key"]).startswith("at|"),
        )
        for d in found
    ]


async def is_over(db: Database, job: CompletedJob, recorded_from_ms: int) -> bool:
    """Whether nothing of the job is owed: no execution, no range to catch up, no backfill that was asked for, no replay;
    and a job that ran once has a record of that, unless it ended before `recorded_from_ms`: then the record may have expired.

    In this order: what is caught up or backfilled becomes an execution, and an execution a record.
    """
    of_job = {"$gte": f"{job.id}:", "$lt": f"{job.id};"}
    with operation():
        at = DatetimeMS(job.ended_ms)
        key: Document = {"key": job.schedule_key, "job_id": {"$in": [None, job.id]}, "from": {"$lte": at}}
        if await db.work["backfills"].find_one(key, {"_id": 1}) is not None:
            return False
        asked_for: Document = {"job_id": job.id, "state": RUNNING}
        if await db.work["requested_backfills"].find_one(asked_for, {"_id": 1}) is not None:
            return False
        if await db.work["executions"].find_one({"_id": of_job}, {"_id": 1}) is not None:
            return False
        if await db.work["history"].find_one({"_id": of_job, "state": REOPENED}, {"_id": 1}) is not None:
            return False
        if not job.runs_once or job.ended_ms < recorded_from_ms:
            return True
        name = execution_id(job.id, job.ended_ms)
        return await db.work["history"].find_one({"_id": {"$in": [name, f"{name}:missed"]}}, {"_id": 1}) is not None
