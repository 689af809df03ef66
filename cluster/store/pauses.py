"""Pauses that end by themselves (`pause.until` in `jobs`): which are over, and their end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bson.datetime_ms import DatetimeMS
from pymongo import UpdateOne

from cluster.core.lifecycle import JobState
from cluster.store import revisions
from cluster.store.job_notes import origin_and_entry
from cluster.store.jobs import WITHOUT_PERIODS, stored_job
from cluster.store.mongo.decoding import decode_readable
from cluster.store.mongo.operation import operation
from cluster.store.outbox import OUTBOX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.core.job.definition import JobChange, StoredJob
    from cluster.store.mongo.client import Database, Document

_FIELDS = {**WITHOUT_PERIODS, "body": 0}


def _over(now_ms: int) -> Document:
    # The index has jobs with a date only, and MongoDB takes it only if that is said: else it reads all paused jobs.
    return {"state": JobState.PAUSED.value, "pause.until": {"$type": "date", "$lte": DatetimeMS(now_ms)}}


async def any_waiting(db: Database, now_ms: int) -> bool:
    """Whether a pause is over, or a change of a job is not settled: one look of a leader at rest instead of two."""
    either: Document = {"$or": [{"unsettled": {"$exists": True}}, _over(now_ms)]}
    with operation():
        return await db.work["jobs"].find_one(either, {"_id": 1}) is not None


async def over(db: Database, now_ms: int, limit: int) -> list[StoredJob]:
    """Up to `limit` jobs, without their bodies, whose pause is over; unreadable ones are left out."""
    # A job that a node of the release before has resumed and paused again since: see `jobs`.
    query: Document = {**_over(now_ms), "$expr": {"$eq": ["$pause.version", "$schedule_version"]}}
    with operation():
        documents = await db.work["jobs"].find(query, _FIELDS).sort("pause.until", 1).limit(limit).to_list()
    return decode_readable("job", documents, lambda d: stored_job(d, db.keyring))


async def end(db: Database, changes: Sequence[JobChange]) -> int:
    """Write the ends of pauses, each on the revision before it. Returns how many were written: others changed meanwhile."""
    if not changes:
        return 0
    await revisions.keep(db, [c.job.id for c in changes])
    with operation():
        result = await db.work["jobs"].bulk_write([UpdateOne(*_update(c)) for c in changes], ordered=False)
    await revisions.trim(db, {c.job.id: c.job.revision for c in changes})
    return result.matched_count


def _update(change: JobChange) -> tuple[Document, Document]:
    """Nothing but what the end of a pause changes: the jobs were read without their bodies."""
    job = change.job
    origin, entry = origin_and_entry(change)
    fields = {
        "state": job.state.value,
        "state_reason": None,
        "pause": None,
        "schedule_version": job.schedule_version,
        "active_from": DatetimeMS(job.active_from_ms),
        "revision": job.revision,
        "updated_at": DatetimeMS(job.updated_ms),
        "unsettled": change.change_id,
        "origin": origin,
    }
    pushed = {} if entry is None else {"$push": {OUTBOX: entry}}
    return {"_id": job.id, "revision": job.revision - 1}, {"$set": fields, **pushed}
