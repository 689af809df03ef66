"""`jobs` as the engine reads them, and the few fields of a job that the engine writes. Defining jobs is in `jobs`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS

from cluster.core.job.definition import JobChange
from cluster.core.lifecycle import JobState
from cluster.store import channels, jobs, revisions
from cluster.store.alert_jobs import with_address
from cluster.store.history import DAY_MS
from cluster.store.mongo.callback_fields import CALLBACK_FIELDS, TOLD_UNTIL
from cluster.store.mongo.codec import JOB_FIELDS, JOB_FIELDS_WITHOUT_LARGE_BODY, job_from_document
from cluster.store.mongo.decoding import decode_each
from cluster.store.mongo.encryption import NO_KEYS
from cluster.store.mongo.job_schedule_codec import JOB_SCHEDULE_FIELDS, UNSETTLED_FIELDS, job_schedule_from_document
from cluster.store.mongo.operation import ONE_REPLY, operation
from cluster.store.outbox import OUTBOX

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cluster.core.execution.model import Job, JobSchedule
    from cluster.core.job.definition import StoredJob
    from cluster.store.mongo.client import Database, Document
    from cluster.store.mongo.decoded_jobs import JobStamp
    from cluster.store.mongo.encryption import Keyring


@dataclass(frozen=True, slots=True)
class JobsById:
    """Jobs as they are now, by id; ids that do not exist are absent. `unreadable`: why others cannot be read, by id."""

    jobs: dict[str, Job]
    unreadable: dict[str, str] = field(default_factory=dict)


def from_stored(job: StoredJob, keyring: Keyring = NO_KEYS) -> Job:
    """The job as the engine would read it, if it were stored."""
    return job_from_document(jobs.new_document(JobChange(job), keyring), keyring)


async def by_id(db: Database, ids: Collection[str]) -> JobsById:
    """The jobs as dispatch needs them, as they are now; alert jobs with the present address of their channel.

    Large bodies are left out: a batch of 512 may have 512 MB of them. Of jobs that were decoded before only the stamp is
    read; those whose stamp is another one are read after that.
    """
    known = {i for i in ids if i in db.decoded_jobs}
    unchanged = await _unchanged(db, known) if known else {}
    decoded, unreadable = await _read(db, [i for i in ids if i not in unchanged], JOB_FIELDS_WITHOUT_LARGE_BODY)
    for job, stamp in decoded:
        db.decoded_jobs.keep(job, stamp)
    return await _sendable(db, [*unchanged.values(), *(job for job, _ in decoded)], unreadable)


async def by_id_in_full(db: Database, ids: Collection[str]) -> JobsById:
    """The same with their bodies, however large."""
    decoded, unreadable = await _read(db, list(ids), JOB_FIELDS)
    return await _sendable(db, [job for job, _ in decoded], unreadable)


async def _sendable(db: Database, read: Sequence[Job], unreadable: dict[str, str]) -> JobsById:
    jobs = {j.id: j for j in read}
    alert_jobs = [j for j in read if j.channel is not None]
    if not alert_jobs:
        return JobsById(jobs, unreadable)
    addressed, unaddressed = await _addressed(db, alert_jobs)
    sendable = {job_id: addressed.get(job_id, job) for job_id, job in jobs.items() if job_id not in unaddressed}
    return JobsById(sendable, unreadable | unaddressed)


async def _unchanged(db: Database, ids: Collection[str]) -> dict[str, Job]:
    """Those of these jobs that are as they were when they were decoded, by id."""
    with operation():
        documents = (
            await db.work["jobs"].find({"_id": {"$in": list(ids)}}, _STAMP_FIELDS, batch_size=ONE_REPLY).to_list()
        )
    found = ((d["_id"], db.decoded_jobs.get(d["_id"], _stamp(d))) for d in documents)
    return {job_id: job for job_id, job in found if job is not None}


async def _read(
    db: Database, ids: Sequence[str], fields: Document
) -> tuple[list[tuple[Job, JobStamp]], dict[str, str]]:
    if not ids:
        return [], {}
    with operation():
        documents = await db.work["jobs"].find({"_id": {"$in": ids}}, fields, batch_size=ONE_REPLY).to_list()
    return decode_each("job", documents, lambda d: (job_from_document(d, db.keyring), _stamp(d)))


def _stamp(d: Document) -> JobStamp:
    followed = bool(d.get("followed_by"))
    return d.get("revision", 0), d.get("schedule_version", ""), d.get("state", ""), d.get("host"), followed


_STAMP_FIELDS = dict.fromkeys(("revision", "schedule_version", "state", "host", "followed_by.job"), 1)


async def _addressed(db: Database, alert_jobs: Sequence[Job]) -> tuple[dict[str, Job], dict[str, str]]:
    """These alert jobs with their addresses, by id; and by id why the others cannot be sent."""
    by_name, undecryptable = await channels.for_sending(db, {str(j.channel) for j in alert_jobs})
    addressed: dict[str, Job] = {}
    unaddressed: dict[str, str] = {}
    for job in alert_jobs:
        name = str(job.channel)
        channel = by_name.get(name)
        if channel is None:
            unaddressed[job.id] = undecryptable.get(name, f"there is no channel '{name}' any more")
        else:
            addressed[job.id] = with_address(job, channel)
    return addressed, unaddressed


@dataclass(frozen=True, slots=True)
class UnreadableJob:
    """A job whose document cannot be read. `key`: of its schedule, if that can be read; `why`: in words."""

    job_id: str
    key: str | None
    why: str


@dataclass(frozen=True, slots=True)
class JobSchedulePage:
    """A page of jobs with what they owe. `last`: id of the last document of a full page, behind which there may be more.

    Whether a page is full cannot be told from the length of `jobs`, because unreadable jobs are not among them.
    """

    jobs: list[JobSchedule]
    last: str | None = None
    unreadable: tuple[UnreadableJob, ...] = ()


def _page(documents: list[Document], limit: int) -> JobSchedulePage:
    jobs, unreadable = decode_each("job", documents, job_schedule_from_document)
    last = documents[-1]["_id"] if len(documents) == limit else None
    if not unreadable:
        return JobSchedulePage(jobs, last)
    keys = {d["_id"]: d.get("schedule_key") for d in documents if d["_id"] in unreadable}
    return JobSchedulePage(jobs, last, tuple(UnreadableJob(i, keys.get(i), why) for i, why in unreadable.items()))


async def of_schedules(
    db: Database, keys: Sequence[str], limit: int, *, after: str | None = None, include_completed: bool = False
) -> JobSchedulePage:
    """Active, settled jobs of these schedules, up to `limit`; for one key in order of id, from behind `after`.

    Jobs with an unsettled change are left out: settling writes what they owe (`cluster.leader` says why that is safe).
    With `include_completed`, also jobs whose end has passed, because catching up reaches back before it.
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
        cursor = db.work["jobs"].find(query, JOB_SCHEDULE_FIELDS, batch_size=ONE_REPLY).limit(limit)
        if len(keys) == 1:
            cursor = cursor.sort("_id", 1)
        documents = await cursor.to_list()
    return _page(documents, limit)


async def get_schedule(db: Database, job_id: str) -> JobSchedule | None:
    """What one job owes, whatever its state; None if there is no such job."""
    with operation():
        d = await db.work["jobs"].find_one({"_id": job_id}, JOB_SCHEDULE_FIELDS)
    return None if d is None else job_schedule_from_document(d)


async def get_schedules(db: Database, job_ids: Collection[str]) -> dict[str, JobSchedule]:
    """What these jobs owe, whatever their state, with their past schedules, by id; jobs that do not exist or cannot be read
    are absent.
    """
    with operation():
        documents = await db.work["jobs"].find({"_id": {"$in": list(job_ids)}}, UNSETTLED_FIELDS).to_list()
    return {j.id: j for j in decode_each("job", documents, job_schedule_from_document)[0]}


async def unsettled(db: Database, limit: int, exclude: Sequence[str] = ()) -> JobSchedulePage:
    """Jobs with an unsettled change, whatever their state, without those in `exclude`."""
    query: Document = {"unsettled": {"$exists": True}}
    if exclude:
        query["_id"] = {"$nin": list(exclude)}
    with operation():
        documents = await db.work["jobs"].find(query, UNSETTLED_FIELDS).limit(limit).to_list()
    return _page(documents, limit)


async def with_pending_change(
    db: Database, keys: Collection[str], since_ms: int, exclude: Sequence[str] = ()
) -> list[str]:
    """Ids of all jobs with an unsettled change that followed one of these schedules at or after an instant (ms).

    `exclude`: ids that are left out.
    """
    ended = {"to": {"$gte": DatetimeMS(since_ms)}}
    # Releases before this one did not store the key of a past schedule.
    follows = [{"past": {"$elemMatch": {"key": key, **ended}}} for key in ({"$in": list(keys)}, {"$exists": False})]
    query: Document = {"unsettled": {"$exists": True}, "$or": follows}
    if exclude:
        query["_id"] = {"$nin": list(exclude)}
    with operation():
        return [d["_id"] async for d in db.work["jobs"].find(query, {"_id": 1})]


async def pending(db: Database, ids: Collection[str]) -> list[JobSchedule]:
    """Those of these jobs whose change is not settled, with their past schedules; unreadable ones are left out."""
    query: Document = {"_id": {"$in": list(ids)}, "unsettled": {"$exists": True}}
    with operation():
        documents = await db.work["jobs"].find(query, UNSETTLED_FIELDS).to_list()
    return decode_each("job", documents, job_schedule_from_document)[0]


async def schedule_versions(db: Database, ids: Collection[str]) -> dict[str, str]:
    """The present schedule version of each of these jobs; jobs that do not exist are absent."""
    with operation():
        documents = await db.work["jobs"].find({"_id": {"$in": list(ids)}}, {"schedule_version": 1}).to_list()
    return {d["_id"]: d["schedule_version"] for d in documents}


async def not_paused(db: Database, ids: Collection[str]) -> set[str]:
    """Those of these jobs that exist and are not paused."""
    query = {"_id": {"$in": list(ids)}, "state": {"$ne": JobState.PAUSED.value}}
    with operation():
        return {d["_id"] async for d in db.work["jobs"].find(query, {"_id": 1})}


async def mark_settled(db: Database, change_ids: Sequence[str]) -> None:
    """Mark these changes as settled. A job that was changed again meanwhile has another change id and stays unsettled."""
    with operation():
        await db.work["jobs"].update_many({"unsettled": {"$in": list(change_ids)}}, {"$unset": {"unsettled": ""}})


async def complete_ended(db: Database, before_ms: int, limit: int) -> int:
    """Turn up to `limit` active, settled jobs whose last occurrence was before an instant into `completed` ones. Returns how
    many.
    """
    ended: Document = {
        "state": JobState.ACTIVE.value,
        "ends_at": {"$type": "date", "$lt": DatetimeMS(before_ms)},
        "unsettled": {"$exists": False},
    }
    change = {"$set": {"state": JobState.COMPLETED.value}, "$inc": {"revision": 1}}
    with operation():
        some = await db.work["jobs"].find(ended, {"_id": 1}).limit(limit).to_list()
        if not some:
            return 0
        # The whole condition again: a job that was changed meanwhile may not have ended.
        result = await db.work["jobs"].update_many({**ended, "_id": {"$in": [d["_id"] for d in some]}}, change)
    return result.modified_count


async def delete_tombstones(db: Database, before_ms: int, limit: int, retention_days: float) -> int:
    """Delete up to `limit` settled tombstones of jobs that were deleted before an instant. Returns how many.

    A job that keeps its history for longer than `retention_days` keeps its tombstone for as much longer.
    """
    days = {"$subtract": [{"$ifNull": ["$retention_days", retention_days]}, retention_days]}
    longer = {"$toLong": {"$multiply": [DAY_MS, {"$max": [0, days]}]}}
    expired: Document = {
        "state": JobState.DELETED.value,
        "updated_at": {"$lt": DatetimeMS(before_ms)},
        "unsettled": {"$exists": False},
        f"{OUTBOX}._id": {"$exists": False},
        "$expr": {"$lt": ["$updated_at", {"$subtract": [DatetimeMS(before_ms), longer]}]},
    }
    with operation():
        documents = await db.work["jobs"].find(expired, {"revision": 1}).limit(limit).to_list()
    if not documents:
        return 0
    # First, so that a job that is created later under the same id does not find them.
    await revisions.delete(db, {d["_id"]: d["revision"] for d in documents})
    with operation():
        # The whole condition again: a job created under the same id meanwhile is not a tombstone any more.
        deletion = {**expired, "_id": {"$in": [d["_id"] for d in documents]}}
        return (await db.work["jobs"].delete_many(deletion)).deleted_count


async def forget_callbacks(db: Database, now_ms: int) -> int:
    """Deleted jobs lose their callbacks when nothing of them can be in flight any more. Returns how many."""
    # With the type, or MongoDB would not take the index, which has dates only, and would read every tombstone.
    over: Document = {"state": JobState.DELETED.value, TOLD_UNTIL: {"$type": "date", "$lt": DatetimeMS(now_ms)}}
    without: Document = {**dict.fromkeys(CALLBACK_FIELDS), TOLD_UNTIL: None}
    with operation():
        return (await db.work["jobs"].update_many(over, {"$set": without})).modified_count


async def begin_exclusive(db: Database, job_id: str, execution_id: str, instead_of: str | None) -> str | None:
    """Compare-and-set for `overlap: skip`: make this the running execution, if `instead_of` still is (None: none is).

    Returns the execution that runs now: this one, or the one that was faster. None if the job does not exist.
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
    """Note that these executions run no more."""
    with operation():
        await db.work["jobs"].update_many(
            {"_id": {"$in": list(job_ids)}, "running": {"$in": list(execution_ids)}}, {"$set": {"running": None}}
        )
