"""`jobs` as the engine reads them. Defining and changing jobs is in `store.jobs`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.core.lifecycle import JobState
from cluster.store.codec import JOB_FIELDS, OWING_FIELDS, UNSETTLED_FIELDS, job_from_document, owing_from_document
from cluster.store.door import translated

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cluster.core.model import Job, Owing
    from cluster.store.client import Database, Document


async def by_id(db: Database, ids: Iterable[str]) -> dict[str, Job]:
    """The jobs as they are now; ids that do not exist are absent."""
    with translated():
        found = await db.work["jobs"].find({"_id": {"$in": list(ids)}}, JOB_FIELDS).to_list()
    return {d["_id"]: job_from_document(d) for d in found}


async def owing(
    db: Database, keys: Sequence[str], limit: int, *, after: str | None = None, completed: bool = False
) -> list[Owing]:
    """Active, settled jobs of these schedules, up to `limit`; for one key in order of id, from behind `after`.

    What a job with an unsettled change owes is settling's to write (see `cluster.leader` for why that is safe). With
    `completed`, also those whose end has passed: catching up reaches back before it.
    """
    states = [JobState.ACTIVE.value, JobState.COMPLETED.value] if completed else [JobState.ACTIVE.value]
    query: Document = {"schedule_key": {"$in": list(keys)}, "state": {"$in": states}, "unsettled": {"$exists": False}}
    if len(keys) == 1:
        query["schedule_key"] = keys[0]
    if not completed:
        query["state"] = JobState.ACTIVE.value
    if after is not None:
        query["_id"] = {"$gt": after}
    with translated():
        cursor = db.work["jobs"].find(query, OWING_FIELDS).limit(limit)
        if len(keys) == 1:
            cursor = cursor.sort("_id", 1)
        found = await cursor.to_list()
    return [owing_from_document(d) for d in found]


async def owing_one(db: Database, job_id: str) -> Owing | None:
    """One job, whatever its state."""
    with translated():
        d = await db.work["jobs"].find_one({"_id": job_id}, OWING_FIELDS)
    return None if d is None else owing_from_document(d)


async def unsettled(db: Database, limit: int) -> list[Owing]:
    """Jobs changed since the leader last looked, whatever their state."""
    with translated():
        found = await db.work["jobs"].find({"unsettled": {"$exists": True}}, UNSETTLED_FIELDS).limit(limit).to_list()
    return [owing_from_document(d) for d in found]


async def settle(db: Database, changes: Sequence[str]) -> None:
    """Clear the marks of exactly these changes; a job changed again meanwhile carries another mark and keeps it."""
    with translated():
        await db.work["jobs"].update_many({"unsettled": {"$in": list(changes)}}, {"$unset": {"unsettled": ""}})


async def complete_ended(db: Database, before_ms: int) -> int:
    """Jobs whose last occurrence is past become `completed`; settled ones alone. Returns how many."""
    with translated():
        result = await db.work["jobs"].update_many(
            {
                "state": JobState.ACTIVE.value,
                "ends_at": {"$type": "date", "$lt": DatetimeMS(before_ms)},
                "unsettled": {"$exists": False},
            },
            {"$set": {"state": JobState.COMPLETED.value}, "$inc": {"revision": 1}},
        )
    return result.modified_count


async def begin_exclusive(db: Database, job_id: str, execution_id: str, instead_of: str | None) -> str | None:
    """Compare-and-set for `overlap: skip`: this execution is the running one, if `instead_of` still is (None: nobody).

    Returns the execution that runs now: ours, or the one that was faster.
    """
    with translated():
        result = await db.work["jobs"].update_one(
            {"_id": job_id, "running": {"$in": [instead_of, execution_id]}}, {"$set": {"running": execution_id}}
        )
        if result.matched_count:
            return execution_id
        d = await db.work["jobs"].find_one({"_id": job_id}, {"running": 1})
    return None if d is None else d.get("running")


async def end_exclusive(db: Database, execution_ids: Sequence[str], job_ids: Sequence[str]) -> None:
    """These executions run no more."""
    with translated():
        await db.work["jobs"].update_many(
            {"_id": {"$in": list(job_ids)}, "running": {"$in": list(execution_ids)}}, {"$set": {"running": None}}
        )
