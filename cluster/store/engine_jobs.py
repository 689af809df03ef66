"""`jobs` as the engine reads them. Defining and changing jobs is in `store.jobs`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.core.lifecycle import JobState
from cluster.store import channels
from cluster.store.alert_jobs import with_address
from cluster.store.history import DAY_MS
from cluster.store.mongo.codec import (
    JOB_FIELDS,
    JOB_SCHEDULE_FIELDS,
    UNSETTLED_FIELDS,
    job_from_document,
    job_schedule_from_document,
)
from cluster.store.mongo.decoding import decode_each
from cluster.store.mongo.operation import operation

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from cluster.core.execution.model import Job, JobSchedule
    from cluster.store.mongo.client import Database, Document


@dataclass(frozen=True, slots=True)
class JobsById:
    """The jobs as they are now, by id; ids that do not exist are absent. `unreadable` says why they cannot be read."""

    jobs: dict[str, Job]
    unreadable: dict[str, str] = field(default_factory=dict)


async def by_id(db: Database, ids: Iterable[str]) -> JobsById:
    """The jobs as dispatch needs them."""
    with operation():
        found = await db.work["jobs"].find({"_id": {"$in": list(ids)}}, JOB_FIELDS).to_list()
    jobs, unreadable = decode_each("job", found, lambda d: job_from_document(d, db.keyring))
    read = JobsById({j.id: j for j in jobs}, unreadable)
    carriers = [j for j in jobs if j.channel is not None]
    if carriers:
        await _address(db, read, carriers)
    return read


async def _address(db: Database, read: JobsById, carriers: Sequence[Job]) -> None:
    """Alerts go to where their channel is now."""
    known, locked = await channels.for_sending(db, {str(j.channel) for j in carriers})
    for job in carriers:
        name = str(job.channel)
        channel = known.get(name)
        if channel is None:
            del read.jobs[job.id]
            read.unreadable[job.id] = locked.get(name, f"there is no channel '{name}' any more")
        else:
            read.jobs[job.id] = with_address(job, channel)


@dataclass(frozen=True, slots=True)
class UnreadableJob:
    """A job whose document cannot be read, the key of its schedule if that can, and why."""

    job_id: str
    key: str | None
    why: str


@dataclass(frozen=True, slots=True)
class JobSchedulePage:
    """Jobs that owe. `last` is the last one looked at if the page is full: there may be more behind it.

    What cannot be read is not among `jobs`, so their number says nothing about that.
    """

    jobs: list[JobSchedule]
    last: str | None = None
    unreadable: tuple[UnreadableJob, ...] = ()


def _page(found: list[Document], limit: int) -> JobSchedulePage:
    jobs, poison = decode_each("job", found, job_schedule_from_document)
    last = found[-1]["_id"] if len(found) == limit else None
    if not poison:
        return JobSchedulePage(jobs, last)
    keys = {d["_id"]: d.get("schedule_key") for d in found if d["_id"] in poison}
    return JobSchedulePage(jobs, last, tuple(UnreadableJob(i, keys.get(i), why) for i, why in poison.items()))


async def of_schedules(
    db: Database, keys: Sequence[str], limit: int, *, after: str | None = None, include_completed: bool = False
) -> JobSchedulePage:
    """Active, settled jobs of these schedules, up to `limit`; for one key in order of id, from behind `after`.

    What a job with an unsettled change owes is settling's to write (see `cluster.leader` for why that is safe). With
    `completed`, also those whose end has passed: catching up reaches back before it.
    """
    states = [JobState.ACTIVE.value, JobState.COMPLETED.value] if include_completed else [JobState.ACTIVE.value]
    query: Document = {"schedule_key": {"$in": list(keys)}, "state": {"$in": states}, "unsettled": {"$exists": False}}
    if len(keys) == 1:
        query["schedule_key"] = keys[0]
    if not include_completed:
        query["state"] = JobState.ACTIVE.value
    if after is not None:
        query["_id"] = {"$gt": after}
    with operation():
        cursor = db.work["jobs"].find(query, JOB_SCHEDULE_FIELDS).limit(limit)
        if len(keys) == 1:
            cursor = cursor.sort("_id", 1)
        found = await cursor.to_list()
    return _page(found, limit)


async def get_schedule(db: Database, job_id: str) -> JobSchedule | None:
    """One job, whatever its state."""
    with operation():
        d = await db.work["jobs"].find_one({"_id": job_id}, JOB_SCHEDULE_FIELDS)
    return None if d is None else job_schedule_from_document(d)


async def unsettled(db: Database, limit: int, exclude: Sequence[str] = ()) -> JobSchedulePage:
    """Jobs changed since the leader last looked, whatever their state, but `without` these."""
    query: Document = {"unsettled": {"$exists": True}}
    if exclude:
        query["_id"] = {"$nin": list(exclude)}
    with operation():
        found = await db.work["jobs"].find(query, UNSETTLED_FIELDS).limit(limit).to_list()
    return _page(found, limit)


async def keys_with_pending_change(
    db: Database, keys: Collection[str], limit: int, exclude: Sequence[str] = ()
) -> set[str]:
    """Those of these schedules that a job with an unsettled change (but `without` these jobs) owed under before it.

    What it owed is told by settling, as far as their rows and ranges have not come. So where these are behind the time
    of the change, they must not move on before. Only the first `limit` such jobs are looked at.
    """
    query: Document = {"unsettled": {"$exists": True}, "past.0": {"$exists": True}, "_id": {"$nin": list(exclude)}}
    with operation():
        found = await db.work["jobs"].find(query, UNSETTLED_FIELDS).limit(limit).to_list()
    return {past.schedule_key for job in _page(found, limit).jobs for past, _ in job.past_schedules} & set(keys)


async def schedule_versions(db: Database, ids: Collection[str]) -> dict[str, str]:
    """The schedule versions that these jobs have now; none for those that are gone."""
    with operation():
        found = await db.work["jobs"].find({"_id": {"$in": list(ids)}}, {"schedule_version": 1}).to_list()
    return {d["_id"]: d["schedule_version"] for d in found}


async def mark_settled(db: Database, change_ids: Sequence[str]) -> None:
    """Clear the marks of exactly these changes; a job changed again meanwhile carries another mark and keeps it."""
    with operation():
        await db.work["jobs"].update_many({"unsettled": {"$in": list(change_ids)}}, {"$unset": {"unsettled": ""}})


async def complete_ended(db: Database, before_ms: int) -> int:
    """Jobs whose last occurrence is past become `completed`; settled ones alone. Returns how many."""
    with operation():
        result = await db.work["jobs"].update_many(
            {
                "state": JobState.ACTIVE.value,
                "ends_at": {"$type": "date", "$lt": DatetimeMS(before_ms)},
                "unsettled": {"$exists": False},
            },
            {"$set": {"state": JobState.COMPLETED.value}, "$inc": {"revision": 1}},
        )
    return result.modified_count


async def delete_tombstones(db: Database, before_ms: int, limit: int, retention_days: float) -> int:
    """Remove settled tombstones of jobs deleted before an instant, some at a time. Returns how many.

    Jobs that keep their history for longer than `retention_days` keep their tombstones for so much longer.

    A job made again under the same id meanwhile is not `deleted` any more, and each document is judged as it is
    removed.
    """
    days = {"$subtract": [{"$ifNull": ["$retention_days", retention_days]}, retention_days]}
    longer = {"$toLong": {"$multiply": [DAY_MS, {"$max": [0, days]}]}}
    gone: Document = {
        "state": JobState.DELETED.value,
        "updated_at": {"$lt": DatetimeMS(before_ms)},
        "unsettled": {"$exists": False},
        "$expr": {"$lt": ["$updated_at", {"$subtract": [DatetimeMS(before_ms), longer]}]},
    }
    with operation():
        found = await db.work["jobs"].find(gone, {"_id": 1}).limit(limit).to_list()
        if not found:
            return 0
        return (await db.work["jobs"].delete_many({**gone, "_id": {"$in": [d["_id"] for d in found]}})).deleted_count


async def begin_exclusive(db: Database, job_id: str, execution_id: str, instead_of: str | None) -> str | None:
    """Compare-and-set for `overlap: skip`: this execution is the running one, if `instead_of` still is (None: nobody).

    Returns the execution that runs now: ours, or the one that was faster.
    """
    with operation():
        result = await db.work["jobs"].update_one(
            {"_id": job_id, "running": {"$in": [instead_of, execution_id]}}, {"$set": {"running": execution_id}}
        )
        if result.matched_count:
            return execution_id
        d = await db.work["jobs"].find_one({"_id": job_id}, {"running": 1})
    return None if d is None else d.get("running")


async def end_exclusive(db: Database, execution_ids: Sequence[str], job_ids: Sequence[str]) -> None:
    """These executions run no more."""
    with operation():
        await db.work["jobs"].update_many(
            {"_id": {"$in": list(job_ids)}, "running": {"$in": list(execution_ids)}}, {"$set": {"running": None}}
        )
