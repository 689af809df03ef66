"""`jobs` by the calendar that they name: which ones have to follow a change of it, and the write with which they do.

A job is rewritten on the revision that was read, as by a change of its definition. So a follower that was replaced, or
that runs beside another one, overwrites nobody: a job that was changed meanwhile is looked at again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pymongo import UpdateOne

from cluster.core.lifecycle import JobState
from cluster.store.jobs import WITHOUT_PERIODS, stored_job, update_of
from cluster.store.mongo.decoding import decode_each
from cluster.store.mongo.encryption import NO_KEYS
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.core.job.definition import JobChange, StoredJob
    from cluster.store.mongo.client import Database, Document

_FOLLOWING: Document = {"$in": [JobState.ACTIVE.value, JobState.PAUSED.value]}
"""A job that has ended follows no calendar any more."""
_EXISTS: Document = {"$ne": JobState.DELETED.value}
TIMING_FIELDS = (
    "anchor",
    "schedule_key",
    "schedule_version",
    "active_from",
    "calendar",
    "ends_at",
    "state",
    "state_reason",
    "pause",
    "revision",
    "first_at",
    "last_at",
    "updated_at",
)


async def behind(
    db: Database, calendar: str, version: str, limit: int, exclude: Sequence[str] = ()
) -> tuple[list[StoredJob], dict[str, str]]:
    """Jobs that name this calendar and were written by another version of it, at most `limit`; without body and secrets.

    Second, by id, why others cannot be read. `exclude`: ids that are left out.
    """
    query: Document = {"calendar.name": calendar, "calendar.version": {"$ne": version}, "state": _FOLLOWING}
    if exclude:
        query["_id"] = {"$nin": list(exclude)}
    left_out: Any = {**WITHOUT_PERIODS, "body": 0}
    with operation():
        documents = await db.work["jobs"].find(query, left_out).limit(limit).to_list()
    return decode_each("job", documents, stored_job)


async def write_timing(db: Database, changes: Sequence[JobChange]) -> int:
    """Write of these changes what concerns the schedule, each on the revision before it. Returns how many were written."""
    if not changes:
        return 0
    writes = []
    for change in changes:
        plain = replace(change, job=replace(change.job, definition=change.job.definition.without_secrets()))
        writes.append(UpdateOne(*update_of(plain, NO_KEYS, TIMING_FIELDS)))
    with operation():
        return (await db.work["jobs"].bulk_write(writes, ordered=False)).matched_count


async def using(db: Database, calendar: str, limit: int) -> list[str]:
    """The first jobs that name this calendar, by id."""
    query: Document = {"calendar.name": calendar, "state": _EXISTS}
    with operation():
        documents = await db.api["jobs"].find(query, {"_id": 1}).sort("_id", 1).limit(limit).to_list()
    return [d["_id"] for d in documents]


async def counts(db: Database, calendar: str, version: str) -> tuple[int, int]:
    """How many jobs name this calendar, and how many of them have not followed it to this version yet."""
    with operation():
        named = await db.api["jobs"].count_documents({"calendar.name": calendar, "state": _EXISTS})
        late = await db.api["jobs"].count_documents(
            {"calendar.name": calendar, "calendar.version": {"$ne": version}, "state": _FOLLOWING}
        )
    return named, late
